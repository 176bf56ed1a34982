"""How the logprobs of given tokens are requested: one module a dialect."""
