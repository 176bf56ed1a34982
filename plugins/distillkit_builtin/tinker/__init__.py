"""Student and scorer on servers that speak the Tinker protocol. Not a plugin by itself."""
