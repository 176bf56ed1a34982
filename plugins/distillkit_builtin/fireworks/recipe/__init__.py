"""The cookbook recipe's own API, translated into a `RunConfig` and run by the one engine."""
