"""How servers are asked for the logprobs of given tokens: one module a dialect."""
