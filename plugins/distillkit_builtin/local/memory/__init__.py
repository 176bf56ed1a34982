"""What the local backend will hold in memory, found before anything is loaded, and what a device has."""
