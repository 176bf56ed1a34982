"""Text to RunConfig: sections, files, overrides, schema, messages with file and line."""
