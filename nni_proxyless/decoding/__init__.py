"""Decoding of a distribution over architectures to networks."""
