"""Files of this package and of others: reading, checking, writing, locking and finding them."""

from ..lazy import names_of_modules

# Names that the module `files` of version 0.1 had.
__getattr__ = names_of_modules(__name__, ["files.writing"])
