"""How the distribution over architectures is learnt, under NNI."""

from ..lazy import names_of_modules

# In version 0.1 this was a module.
__getattr__ = names_of_modules(__name__, ["search.make_strategy"])
