"""How many networks share one body: gated choices, frozen and pruned weights, entangled candidates."""

from ..lazy import names_of_modules

# In version 0.1 this was a module.
__getattr__ = names_of_modules(__name__, ["supernet.gated"])
