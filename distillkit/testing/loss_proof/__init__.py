"""What a loss says that it minimises, proven: the one part of the engine that needs torch, imported when used."""
