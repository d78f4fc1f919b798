"""Check of the pytorch-lightning version that NNI's NAS needs. It imports neither NNI nor Lightning."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..errors import MissingDependencyError

LIGHTNING = ((2, 0), (2, 1))
"""Oldest supported version of pytorch-lightning, and the first version that is too new.

NNI's data loader for ENAS uses private parts of the CombinedLoader of pytorch-lightning 2.0.
"""


def installed(package: str) -> str | None:
    """Return the version of a package, or `None` if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def release(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, such as (2, 0, 9) for `2.0.9.post0`."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_lightning() -> None:
    """Check that NNI's one-shot strategies work with the installed version of pytorch-lightning.

    Raises:
        MissingDependencyError: The version is too old or too new, or pytorch-lightning is not installed. The message
            says what to install.
    """
    found = installed("pytorch-lightning")
    least, below = LIGHTNING
    wanted = "pip install 'pytorch-lightning>=2.0.9,<2.1'"
    if found is None:
        raise MissingDependencyError(f"NNI's NAS needs pytorch-lightning, which is not installed: {wanted}")
    if not least <= release(found)[:2] < below:
        raise MissingDependencyError(
            f"pytorch-lightning {found} does not work with NNI 3.0's one-shot strategies, which use private parts of "
            f"version 2.0 (ENAS's loader fails from 2.1 on): {wanted}"
        )
