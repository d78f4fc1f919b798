"""What runs a network, or counts what it needs."""
