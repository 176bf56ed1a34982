"""How bytes reach the disk and come back: strict JSON, JSON lines, atomic replacement."""
