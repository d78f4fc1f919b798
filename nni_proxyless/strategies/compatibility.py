"""Check of the pytorch-lightning version that searches need. It imports neither NNI nor Lightning."""

from __future__ import annotations

from ..adapters.versions import installed, release
from ..errors import MissingDependencyError

LIGHTNING = (2, 0)
"""Oldest supported version of pytorch-lightning. NNI's strategies run on later ones through `adapters`."""


def check_lightning() -> None:
    """Check that NNI's one-shot strategies work with the installed version of pytorch-lightning.

    Raises:
        MissingDependencyError: The version is too old, or pytorch-lightning is not installed. The message says what to
            install.
    """
    found = installed("pytorch-lightning")
    wanted = "pip install 'pytorch-lightning>=2.0.9'"
    if found is None:
        raise MissingDependencyError(f"NNI's NAS needs pytorch-lightning, which is not installed: {wanted}")
    if release(found)[:2] < LIGHTNING:
        raise MissingDependencyError(f"pytorch-lightning {found} is too old, 2.0.9 or newer is needed: {wanted}")
