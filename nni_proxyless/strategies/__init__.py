"""NNI one-shot strategies that learn the distribution over architectures."""

from ..lazy import names_of_modules

# In version 0.1, `strategies` was a module; its names remain importable from here.
__getattr__ = names_of_modules(__name__, ["search.make_strategy"])
