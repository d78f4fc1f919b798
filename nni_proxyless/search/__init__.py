"""One search from a recipe."""

from ..lazy import names_of_modules

# In version 0.1, `search` was a module; its names remain importable from here.
__getattr__ = names_of_modules(__name__, ["search.run", "search.prepared"])
