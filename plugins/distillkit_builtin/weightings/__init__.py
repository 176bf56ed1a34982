"""Built-in weightings: how much each token of a step counts."""
