"""One exception hierarchy for the whole package.

An `InputError` is an error that the user can fix: a wrong key, file, device or value. The command line prints its
message on one line and exits with code 2. A `RunError` is a run that failed although its input was valid. Its exit
code is 1. A message states what was received, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProxylessError(Exception):
    """Base class of all errors that nni-proxyless raises deliberately."""


class InputError(ProxylessError, ValueError):
    """Invalid input: a value, file or combination that the user has to change."""


class RecipeError(InputError):
    """A recipe with an unknown key, a wrong type or a value out of range."""


class SpaceError(InputError):
    """A search space that does not exist, or whose description is inconsistent."""


class UnsupportedSpaceError(SpaceError, TypeError):
    """A model space with choices of a kind that the strategy does not search. NNI raises a `TypeError` there."""


class LatencyTableError(InputError):
    """A latency table that cannot be read or contains impossible values."""


class MissingOperatorError(LatencyTableError):
    """A latency table that lacks operators of the space it is used for."""


class ArchitectureError(InputError):
    """An architecture file that cannot be read or belongs to another space."""


class DataError(InputError):
    """A data folder that is missing, empty or too small to be split."""


class MissingDependencyError(InputError):
    """An optional package that the chosen feature needs, but that is not installed."""


class DamagedFileError(InputError):
    """A file of weights or a checkpoint that is truncated, damaged, or something else. Nothing in it was executed."""


class RunError(ProxylessError, RuntimeError):
    """A run that failed although its input was valid."""


class WriteError(RunError, OSError):
    """A file or folder that cannot be written: the disk is full, or it is not writable."""


def unknown_name(kind: str, received: object, allowed: Iterable[str]) -> str:
    """Return the error message for an unknown name: the received name, the closest valid one and all valid ones."""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(received), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown {kind} '{received}'{hint} (allowed: {', '.join(names)})"
