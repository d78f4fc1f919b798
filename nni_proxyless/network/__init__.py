"""What a network is, as data and as a module."""
