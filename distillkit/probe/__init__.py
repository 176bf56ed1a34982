"""What a backend gives, measured: whether it is what it must be."""
