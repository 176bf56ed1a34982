"""A vLLM or SGLang server on this machine, for tests and benchmarks: real HTTP, and faults on command."""
