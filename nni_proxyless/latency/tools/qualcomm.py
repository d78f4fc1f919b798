"""Profiles of Qualcomm AI Hub."""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import statistics
from collections.abc import Mapping
from typing import Any

from ...errors import RunError
from .reading import Reading, lines_of, shown

_KEYS = {"execution_summary", "all_inference_times", "estimated_inference_time"}
_DICTIONARY = re.compile(r"""\{\s*["']""")
_MOST = 20  # number of places at which a dictionary is tried


def ai_hub(output: str) -> Reading:
    """Read a profile of Qualcomm AI Hub, printed by a script as JSON or as a Python dictionary.

    The latency is the median of `all_inference_times` in `execution_summary`, in microseconds. Without these times, it
    is `estimated_inference_time`, which is the fastest run, in microseconds. Other lines may surround the profile.

    Source: `ProfileJob.download_profile` of the package `qai-hub` (0.20 to 0.55).

    Raises:
        RunError: The output has no profile, or several, or one without times.
    """
    profile = _profile(output)
    summary = profile.get("execution_summary", profile) if profile else None
    if not isinstance(summary, Mapping):
        lines = lines_of(output)
        last = f"the last line was: {shown(lines[-1])}" if lines else "it printed nothing"
        raise RunError(f"it printed no profile with 'execution_summary' and 'all_inference_times'; {last}")
    every = summary.get("all_inference_times")
    if isinstance(every, (list, tuple)) and every and all(_is_time(time) for time in every):
        middle = statistics.median(every)
        return Reading(middle / 1000, f"median of {len(every)} runs", f"{middle:g} us", "all_inference_times")
    if every:
        raise RunError(f"all_inference_times of the profile contains a value that is not a time: {shown(repr(every))}")
    fastest = summary.get("estimated_inference_time")
    if fastest is not None and _is_time(fastest):
        return Reading(fastest / 1000, "minimum", f"{fastest:g} us", "estimated_inference_time")
    raise RunError(f"the profile has no times: all_inference_times is {every!r}")


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _profile(output: str) -> Mapping[str, Any] | None:
    """Return the profile in a text, written as a dictionary in JSON or in Python.

    Raises:
        RunError: There are several different profiles.
    """
    profiles: list[Mapping[str, Any]] = []
    end = 0
    for start in itertools.islice(_DICTIONARY.finditer(output), _MOST):
        if start.start() < end:
            continue
        try:
            found, found_end = json.JSONDecoder().raw_decode(output, start.start())
        except ValueError:
            found_end = output.rfind("}") + 1
            found = _python(output[start.start() : found_end])
        if isinstance(found, Mapping) and _KEYS & found.keys():
            end = found_end
            if found not in profiles:
                profiles.append(found)
    if len(profiles) > 1:
        raise RunError(
            f"it printed {len(profiles)} profiles, but each call of the command must measure one network: print one"
        )
    return profiles[0] if profiles else None


def _python(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
