"""One self-contained HTML page of one or several runs: what `distillkit report`, the sink and `view` show."""
