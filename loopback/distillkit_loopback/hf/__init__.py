"""Models of transformers behind the loopback servers, computed by transformers' own forward in float32 on the CPU."""
