"""Backends that measure the latency of a network or count its multiply-adds or parameters."""

from ...lazy import names_of_modules

# In version 0.1 this was a module.
__getattr__ = names_of_modules(__name__, ["latency.backends.by_name"])
