"""What backends over HTTP share: retries, limits, replicas, breakers, hedging. Not a plugin."""
