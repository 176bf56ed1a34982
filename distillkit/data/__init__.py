"""Files to rows, rows to routed prompts, messages to token ids."""
