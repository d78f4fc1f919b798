"""Creates the tuner and the assessor of an nnictl config as NNI would, and lets the tuner choose one trial.

It runs as a process of its own, because tuners may load large libraries, run code of the user, or end the process. It
reads JSON from standard input, and writes the fault as JSON, or null, in a line that begins with `MARK`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

MARK = "fault of the tuner: "


def find_fault(algorithms: dict[str, Any], space: dict[str, Any], known: list[str]) -> str | None:
    """Return what is wrong with the algorithms, or `None`.

    Args:
        algorithms: Descriptions of the `tuner`, and of the `assessor` if there is one, in NNI's canonical form.
        space: Search space.
        known: Parameters that a trial accepts.
    """
    from nni.__main__ import _create_algo

    made = {}
    for kind, described in algorithms.items():
        try:
            made[kind] = _create_algo(described, kind)
        except (Exception, SystemExit) as reason:
            return f"{kind} {_name(described)} does not start: {_text(reason)}"
    tuner = made["tuner"]
    try:
        tuner.update_search_space(space)
    except (Exception, SystemExit) as reason:
        return f"tuner {_name(algorithms['tuner'])} does not accept the search space: {_text(reason)}"
    try:
        drawn = tuner.generate_multiple_parameters([0], st_callback=lambda *_: None)
    except (Exception, SystemExit) as reason:
        return f"tuner {_name(algorithms['tuner'])} chooses no trial: {_text(reason)}"
    added = sorted({str(key) for parameters in drawn for key in parameters} - set(known))
    if added:
        names = ", ".join(added)[:200]
        return f"tuner {_name(algorithms['tuner'])} adds parameters to each trial that no recipe has: {names}"
    return None


def _name(described: dict[str, Any]) -> str:
    return str(described.get("name") or described.get("className"))[:100]


def _text(reason: BaseException) -> str:
    return " ".join(f"{type(reason).__name__}: {reason}".split())[:300]


def main() -> None:
    """Check what standard input describes, in the folder that it names: tuners may write files."""
    given = json.load(sys.stdin)
    if hasattr(signal, "alarm"):
        signal.alarm(int(given["timeout_s"]))  # ends this process, even if the one that asks has been killed
    os.environ["NNI_CHECKPOINT_DIRECTORY"] = given["folder"]
    os.chdir(given["folder"])
    fault = find_fault(given["algorithms"], given["space"], given["known"])
    print(f"{MARK}{json.dumps(fault)}")


if __name__ == "__main__":
    main()
