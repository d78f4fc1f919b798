"""Which versions of what NNI's NAS needs work together, checked before anything of it is imported."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ..errors import MissingDependencyError

LIGHTNING = ((2, 0), (2, 1))
"""From and below: NNI's loader for ENAS uses private parts of pytorch-lightning 2.0's CombinedLoader."""


def installed(package: str) -> str | None:
    """The version of an installed package, or none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def release(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 0, 9) of `2.0.9.post0`."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def check_lightning() -> None:
    """Refuse a pytorch-lightning that NNI's one-shot strategies do not work with.

    Raises:
        MissingDependencyError: It is older, newer or not there; the message says what to install.
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
