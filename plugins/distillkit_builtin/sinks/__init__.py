"""Built-in sinks, one file each."""
