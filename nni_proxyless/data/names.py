"""Names of data sets that are not built in: torchvision's, and functions of users. Imports no torch."""

from __future__ import annotations

TORCHVISION = "torchvision:"


def names_a_function(name: str) -> bool:
    """Whether the name of a data set is that of a function, `package.module:function`, which loading it would run."""
    module, _, function = name.partition(":")
    identifiers = function.isidentifier() and all(part.isidentifier() for part in module.split("."))
    return identifiers and not name.startswith(TORCHVISION)
