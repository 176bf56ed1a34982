"""What a backend gives, measured."""
