"""Student and scorer on servers that speak the Tinker protocol: Tinker itself, SkyRL and others."""
