"""Whether all that a row holds is in its prompts: parts that templates leave out, texts that become special tokens."""
