"""Every family of language models that transformers has, tiny."""
