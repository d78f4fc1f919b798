"""The tuner and the assessor of an nnictl config, checked before anything starts.

NNI creates them in a process of its manager. If that fails, NNI only says that the tuner did not connect.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, unknown_name
from ..files.work_folder import WorkFolder
from .algorithm_check import MARK
from .grid_points import MAX_GRID_POINTS, Rules, parse_search_space
from .registration import CLASS, TUNER

_TIMEOUT_S = 60.0
_EXHAUSTIVE = {"gridsearch", "batch", "batchtuner"}  # tuners of NNI that try every point of the space


def is_own(tuner: object) -> bool:
    """Whether a tuner's description names `LatencyBudget`."""
    if not isinstance(tuner, Mapping):
        return False
    return str(tuner.get("name", "")).lower() == TUNER.lower() or tuner.get("className") == CLASS


def check_algorithms(
    source: str, content: Mapping[str, Any], folder: Path, space: Mapping[str, Any], keys: Iterable[str]
) -> None:
    """Check that the tuner, and the assessor if there is one, start and accept the search space.

    Args:
        source: Name of the config, for error messages.
        content: Content of the config.
        folder: Folder of the config.
        space: Its search space.
        keys: Keys of its recipe.

    Raises:
        InputError: One of them does not. The message says why.
    """
    if content.get("advisor") is not None:
        raise InputError(f"{source}: 'advisor' is not supported; choose a 'tuner', such as {TUNER}")
    found = {kind: content[kind] for kind in ("tuner", "assessor") if content.get(kind) is not None}
    if "tuner" not in found:
        raise InputError(f"{source}: 'tuner' is missing; {TUNER} tries each combination once")
    for kind, described in found.items():
        _check_form(source, kind, described)
    if is_own(found["tuner"]):
        check_own(source, found["tuner"], space)
        if len(found) == 1:
            return
    algorithms = {kind: _canonical(described, folder) for kind, described in found.items()}
    fault = _fault_elsewhere(algorithms, space, [*keys, *space])
    if fault is not None:
        raise InputError(f"{source}: {fault}")


def rules_of(tuner: Mapping[str, Any]) -> Rules:
    """Return the rules of a tuner `LatencyBudget` from its description.

    Raises:
        InputError: One of its `classArgs` is unknown, has the wrong type or is out of range.
    """
    from .tuner import LatencyBudget

    arguments = tuner.get("classArgs") or {}
    allowed = [name for name in inspect.signature(LatencyBudget.__init__).parameters if name != "self"]
    for name in arguments:
        if name not in allowed:
            raise InputError(f"{TUNER}: {unknown_name('argument', str(name)[:100], allowed)}")
    try:
        return LatencyBudget(**arguments).rules
    except ValueError as reason:
        raise InputError(str(reason)) from reason


def check_own(source: str, tuner: Mapping[str, Any], space: Mapping[str, Any]) -> None:
    """Check the arguments of `LatencyBudget`, and that it accepts the search space.

    Raises:
        InputError: An argument is invalid, or the tuner does not accept the search space.
    """
    try:
        parse_search_space(space, rules_of(tuner))
    except ValueError as reason:
        raise InputError(f"{source}: {reason}") from reason


def check_size(source: str, tuner: object, points: int, *, limited: bool) -> None:
    """Check that an experiment has no more trials than a tuner or a user can wait for.

    Args:
        source: Name of the config, for error messages.
        tuner: Description of the tuner.
        points: Number of combinations of the search space's choices.
        limited: Whether the config limits the number of trials or the duration.

    Raises:
        InputError: The search space has too many combinations.
    """
    if points <= MAX_GRID_POINTS or (limited and not _tries_all(tuner)):
        return
    other = "set maxTrialNumber or maxExperimentDuration"
    more = "let tuner Random or TPE try some of them" if _tries_all(tuner) else other
    raise InputError(
        f"{source}: the search space has {points:.6g} combinations, of which at most {MAX_GRID_POINTS} can be tried; "
        f"shorten it, or {more}"
    )


def ends_by_itself(content: Mapping[str, Any], *, finite: bool) -> bool:
    """Whether an experiment ends without a signal from the user.

    Args:
        content: Content of its config.
        finite: Whether its search space has only choices.
    """
    limited = content.get("maxTrialNumber") is not None or content.get("maxExperimentDuration") is not None
    return limited or (finite and _tries_all(content.get("tuner")))


def _tries_all(tuner: object) -> bool:
    """Whether a tuner tries each point of the search space once."""
    name = str(tuner.get("name", "")).lower() if isinstance(tuner, Mapping) else ""
    return is_own(tuner) or name in _EXHAUSTIVE


def _check_form(source: str, kind: str, described: object) -> None:
    """Check the keys of a tuner's or assessor's description, and that a built-in one exists."""
    allowed = ("name", "className", "codeDirectory", "classArgs")
    if not isinstance(described, Mapping):
        raise InputError(f"{source}: '{kind}' must be like {{name: {TUNER}}}, got {str(described)[:200]!r}")
    for key in described:
        if key not in allowed:
            raise InputError(f"{source}: {kind}: {unknown_name('key', str(key)[:100], allowed)}")
    name, class_name = described.get("name"), described.get("className")
    if (name is None) == (class_name is None):
        raise InputError(f"{source}: '{kind}' must have either a 'name' or a 'className', got {dict(described)!r:.200}")
    arguments = described.get("classArgs")
    if arguments is not None and not (isinstance(arguments, Mapping) and all(isinstance(a, str) for a in arguments)):
        raise InputError(f"{source}: {kind}.classArgs must be a mapping of names to values, got {arguments!r:.200}")
    if class_name is not None:
        if not isinstance(class_name, str) or "." not in class_name:
            raise InputError(f"{source}: {kind}.className must be like module.Class, got {class_name!r:.200}")
        if not isinstance(described.get("codeDirectory"), str):
            raise InputError(f"{source}: {kind}.className needs {kind}.codeDirectory, such as '.'")
        return
    if described.get("codeDirectory") is not None:
        raise InputError(f"{source}: {kind}.codeDirectory is for a 'className', not for the built-in {name!r:.100}")
    from nni.tools.package_utils import get_all_algo_meta

    metas = [meta for meta in get_all_algo_meta() if meta.algo_type == kind]
    advisors = [meta.name.lower() for meta in metas if meta.is_advisor]
    if str(name).lower() in advisors:
        raise InputError(f"{source}: tuner {name} adds parameters of its own to each trial, which no recipe has")
    # `run` registers this package's own tuner when it starts.
    known = [meta.name for meta in metas if not meta.is_advisor] + ([TUNER] if kind == "tuner" else [])
    aliases = [meta.alias for meta in metas if meta.alias]
    if str(name).lower() not in {text.lower() for text in [*known, *aliases]}:
        raise InputError(f"{source}: {unknown_name(kind, str(name)[:100], set(known))}")


def _canonical(described: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return a description with an absolute folder of its code, as NNI passes it on."""
    found = dict(described)
    if "codeDirectory" in found:
        found["codeDirectory"] = str((base / Path(found["codeDirectory"]).expanduser()).resolve())
    return found


def _fault_elsewhere(algorithms: Mapping[str, Any], space: Mapping[str, Any], known: Iterable[str]) -> str | None:
    """Return what `algorithm_check` finds in a process of its own."""
    from .registration import register

    if is_own(algorithms["tuner"]):
        register()
    given = {"algorithms": algorithms, "space": space, "known": sorted(set(known)), "timeout_s": _TIMEOUT_S}
    try:
        with WorkFolder() as folder:  # the process may be ended before it can remove a folder of its own
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", f"{__package__}.algorithm_check"],
                input=json.dumps({**given, "folder": str(folder)}), capture_output=True, text=True, check=False,
                timeout=_TIMEOUT_S,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the tuner did not start within {_TIMEOUT_S:g} s"
    told = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not told:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"the tuner ends the process that it starts in: {last[:300]}"
    fault: str | None = json.loads(told[-1])
    return fault
