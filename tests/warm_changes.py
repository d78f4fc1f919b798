"""What differs in a warm process from an ordinary one: it measures once, and what it starts is warm, too.

Repetitions of measurements take time, and `tests/latency` tests them. Environment variables say what is to change.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

# The process measures tables, networks and files in one process instead of several.
MEASURE_ONCE = "NNI_PROXYLESS_TESTS_MEASURE_ONCE"
# Measuring processes take fewer samples. The tables may be bad.
FEW_SAMPLES = "NNI_PROXYLESS_TESTS_FEW_SAMPLES"
# The tuner and the trials of a manager that it starts are warm processes. The value is the folder of their programs.
TRIALS = "NNI_PROXYLESS_TESTS_TRIALS"
# What the process starts with `sys.executable` is warm, too. The value is a program in place of Python.
PYTHON = "NNI_PROXYLESS_TESTS_PYTHON"
WORKER = "nni_proxyless.latency.worker"
# Command for warm processes in place of `python`.
PROGRAM = (sys.executable, "-IS", str(Path(__file__).with_name("warm_program.py")))


def apply(words: Sequence[str], place: int | None) -> None:
    """Change this process as its environment says, before it runs the words.

    Args:
        words: Program and its arguments.
        place: Process that stands where an ordinary process would be, between its parent and this process.
    """
    if MEASURE_ONCE in os.environ:
        measure_once()
    if FEW_SAMPLES in os.environ and WORKER in words:
        take_few_samples()
    if TRIALS in os.environ and words[:2] == ["nni-proxyless", "run"]:
        from nni_proxyless.nni_bridge import run

        run._put_commands_on_path = lambda: None  # PATH has the command of warm trials
    if TRIALS in os.environ and (words[:2] == ["nni-proxyless", "run"] or words[0] == "nnictl"):
        from nni.experiment import launcher

        python = os.path.join(os.environ[TRIALS], "python")
        launcher.sys = SimpleNamespace(platform=sys.platform, executable=python)  # type: ignore[attr-defined]
    if words[0] == "nnictl":  # like the managers of `run`
        from nni_proxyless.nni_bridge.answering import wait_longer

        wait_longer()
    if place is not None and "LOCAL_RANK" in os.environ:
        _be_rank(place)
    if PYTHON in os.environ:
        sys.executable = os.environ[PYTHON]
    if place is not None and words[:2] == ["nni-proxyless", "trial"]:
        _watch_from(place)


def _be_rank(place: int) -> None:
    """Let a process that Lightning starts for a further device know which one it is, and its parent."""
    import psutil
    from lightning_fabric.utilities.rank_zero import _get_rank, rank_zero_only

    rank_zero_only.rank = _get_rank()  # type: ignore[attr-defined]  # read before, when the server imported Lightning
    parent = psutil.Process(place).ppid()
    os.getppid = lambda: parent


def _watch_from(place: int) -> None:
    """Let a trial watch the processes between the manager and the place of an ordinary process."""
    import psutil

    from nni_proxyless.nni_bridge import watchdog

    here = psutil.Process(place)
    ancestors = [here, *here.parents()]
    watchdog.psutil = SimpleNamespace(  # type: ignore[assignment]
        Process=lambda: SimpleNamespace(parents=lambda: ancestors),
        Error=psutil.Error,
        STATUS_ZOMBIE=psutil.STATUS_ZOMBIE,
    )


def measure_once() -> None:
    """Let this process measure everything once, in a warm process."""
    from nni_proxyless.latency import fresh_process, isolated, validate

    for name in ("PROCESSES", "TABLE_PROCESSES", "MOST_TABLE_PROCESSES"):
        setattr(isolated, name, 1)
    for function in (
        isolated.measure_networks_isolated, isolated.measure_file_isolated, isolated.measure_table_isolated,
    ):  # fmt: skip
        assert function.__kwdefaults__ is not None
        counts = function.__kwdefaults__.keys() & {"processes", "most_processes"}
        function.__kwdefaults__.update(dict.fromkeys(counts, 1))
    validate.PROCESSES = 1
    fresh_process.PYTHON = (*PROGRAM, "python")


def take_few_samples() -> None:
    """Let this process, which is to measure, take fewer samples, before it imports the backends."""
    from nni_proxyless.latency import protocol

    protocol.OPERATOR_PROTOCOL = replace(protocol.OPERATOR_PROTOCOL, min_rounds=2, max_rounds=2)
    protocol.NETWORK_PROTOCOL = replace(protocol.NETWORK_PROTOCOL, max_rounds=2)
    protocol.CALIBRATION_PROTOCOL = replace(protocol.CALIBRATION_PROTOCOL, min_rounds=1, max_rounds=1)
