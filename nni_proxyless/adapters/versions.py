"""Versions of installed packages."""

from __future__ import annotations


def installed(package: str) -> str | None:
    """Return the version of a package, or `None` if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # takes longer to import than a command to start

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
