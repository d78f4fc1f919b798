"""The supernet: gated choices, freezing and pruning of weights, and candidates that share weights."""

from ..lazy import names_of_modules

# In version 0.1 this was a module.
__getattr__ = names_of_modules(__name__, ["supernet.gated"])
