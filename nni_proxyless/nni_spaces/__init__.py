"""Latency of NNI model spaces that this package does not define, such as those of NNI's hub."""
