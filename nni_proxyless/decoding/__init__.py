"""Which network a distribution over architectures means."""
