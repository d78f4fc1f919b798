"""Checks of single values of an nnictl config, which NNI itself would refuse late or without giving a reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files.probe import why_not_writable
from ..values import MOST_COUNT, MOST_PROCESSES

DURATIONS = ("maxExperimentDuration", "maxTrialDuration")
_UNITS = "dhms"
_BOUNDS = (
    ("trialConcurrency", 1, MOST_PROCESSES),
    ("maxTrialNumber", 1, MOST_COUNT),
    ("trialGpuNumber", 0, MOST_PROCESSES),
)


def check_values(source: str, folder: Path, content: Mapping[str, Any]) -> None:
    """Check the numbers, durations and folders of a config for the local training service.

    Args:
        source: Name of the config, for error messages.
        folder: Folder of the config, from which relative paths start.
        content: Content of the config.

    Raises:
        InputError: A value is missing, has the wrong type or is out of range.
    """
    if content.get("trialConcurrency") is None:
        raise InputError(f"{source}: 'trialConcurrency' is missing: the number of trials that run at the same time")
    for key, least, most in _BOUNDS:
        value = content.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"{source}: '{key}' must be a whole number from {least}, got {value!r:.100}")
        if value is not None and value > most:
            raise InputError(f"{source}: '{key}' must be a whole number from {least} to {most}, got {value!r:.100}")
    for key in DURATIONS:
        if content.get(key) is not None and not _is_duration(content[key]):
            raise InputError(
                f"{source}: '{key}' must be a number of seconds above 0, or one with a unit such as 30m, 12h or 2d, "
                f"got {content[key]!r:.100}"
            )
    for key in ("useAnnotation", "experimentType"):
        if content.get(key) not in (None, False, "hpo"):
            raise InputError(f"{source}: '{key}' is not supported by this package's trials; leave it out")
    service = content.get("trainingService")
    if isinstance(service, Mapping) and service.get("reuseMode"):
        raise InputError(f"{source}: trainingService.reuseMode is not supported by 'run'; leave it out")
    _check_working_directory(source, folder, content.get("experimentWorkingDirectory"))


def _is_duration(value: object) -> bool:
    number: object = value
    if isinstance(value, str):
        try:
            number = float(value[:-1]) if value[-1:].lower() in tuple(_UNITS) else None
        except ValueError:
            return False
    return isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < math.inf


def _check_working_directory(source: str, folder: Path, named: object) -> None:
    """Check that NNI can write in the folder of its experiments, which it creates."""
    if named is not None and not isinstance(named, str):
        raise InputError(f"{source}: 'experimentWorkingDirectory' must be the path of a folder, got {named!r:.200}")
    try:
        path = (folder / Path(named or "~/nni-experiments").expanduser()).resolve()
        why = why_not_writable(path)
    except (OSError, RuntimeError, ValueError) as reason:
        raise InputError(f"{source}: experimentWorkingDirectory cannot be used: {reason}") from reason
    if why is not None:
        raise InputError(
            f"{source}: NNI keeps its experiments in {str(path)[:200]}, but {why}; set experimentWorkingDirectory to a "
            "writable folder"
        )
