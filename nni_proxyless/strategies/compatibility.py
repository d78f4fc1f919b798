"""Check of the pytorch-lightning version that searches need. It imports neither NNI nor Lightning."""

from __future__ import annotations

from ..adapters.versions import installed, release
from ..errors import MissingDependencyError

LIGHTNING = ((2, 0), (3, 0))
"""Oldest supported version of pytorch-lightning, and the first version that has not been tried.

NNI's strategies use private parts of version 2.0. On later versions they run through `nni_proxyless.adapters`.
"""


def check_lightning() -> None:
    """Check that NNI's one-shot strategies work with the installed version of pytorch-lightning.

    Raises:
        MissingDependencyError: The version is too old or too new, or pytorch-lightning is not installed. The message
            says what to install.
    """
    found = installed("pytorch-lightning")
    least, below = LIGHTNING
    wanted = "pip install 'pytorch-lightning>=2.0.9,<3'"
    if found is None:
        raise MissingDependencyError(f"NNI's NAS needs pytorch-lightning, which is not installed: {wanted}")
    if not least <= release(found)[:2] < below:
        raise MissingDependencyError(
            f"pytorch-lightning {found} does not work with NNI 3.0's one-shot strategies: {wanted}"
        )


def check_enas() -> None:
    """Check that the packages which NNI's ENAS needs are installed.

    Raises:
        MissingDependencyError: One of them is not. The message says what to install.
    """
    lacks = [package for package in ("tianshou", "gym") if installed(package) is None]
    if lacks:
        raise MissingDependencyError(
            f"strategy enas needs tianshou and gym; {' and '.join(lacks)} is missing: pip install 'nni-proxyless[enas]'"
        )
