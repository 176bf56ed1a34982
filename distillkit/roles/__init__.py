"""The contract of each role, one file a role."""
