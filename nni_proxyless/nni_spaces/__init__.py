"""NNI model spaces that are not this package's own."""
