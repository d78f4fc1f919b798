"""Networks and search spaces, as plain data and as PyTorch modules."""
