"""Training of networks: evaluator, optimizer, accuracy and fast CPU kernels."""

from ..lazy import names_of_modules

# In version 0.1 this was a module.
__getattr__ = names_of_modules(__name__, ["training.trainer"])
