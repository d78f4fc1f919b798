"""Start of NNI's manager: choice of its port, check that the right one answers, and a second try on a busy machine."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil

from ..errors import InputError, RunError
from ..files.resources import cache_folder
from ..signals import stopped_by_signals as terminated_like_ctrl_c  # noqa: F401  its name in version 0.1
from .answering import wait_longer
from .ports import LOCALHOST_FIX, NO_LOCALHOST, localhost_is_known, port_is_free

_log = logging.getLogger(__name__)
FIRST_PORT = 8080
TRIES = 2
_STARTING = {"INITIALIZED"}
_INITIALIZATION_S = 30.0
_RELEASE_S = 10.0
_STOP_S = 60.0  # after which a manager that has been asked to stop is killed


def check_port(port: int | None) -> None:
    """Check a port that the user has chosen for NNI's web UI, and that NNI can reach the manager there.

    Raises:
        InputError: The port is busy or out of range, or there is no `localhost`.
    """
    if not localhost_is_known():
        raise InputError(f"{NO_LOCALHOST}; {LOCALHOST_FIX}")
    if port is None:
        return
    if not 0 < port < 65536:
        raise InputError(f"port must be from 1 to 65535, got {port}")
    if not port_is_free(port):
        raise InputError(f"port {port} is busy; choose another with --port, or stop what uses it")


def start_manager(config: Any, port: int | None) -> tuple[Any, int]:
    """Start NNI's manager, and make sure that it runs and is the one that answers.

    Without a given port, the first free one from 8080 is taken. It is chosen right before the start, and other `run`
    commands of the same user wait meanwhile, so two of them never take the same one.

    Args:
        config: NNI's experiment config.
        port: Port of the web UI; `None` to choose one.

    Returns:
        NNI's experiment and the port.

    Raises:
        InputError: The given port is busy.
        RunError: The manager did not start in several tries. The message says why.
    """
    reasons: list[str] = []
    for _ in range(TRIES):
        with _alone():
            check_port(port)
            chosen = port or next(p for p in range(FIRST_PORT, 65536) if port_is_free(p))
            experiment, reason = _try(config, chosen)
        if reason is None:
            return experiment, chosen
        reasons.append(reason)
        _log.warning("NNI's manager did not start on port %d: %s", chosen, reason)
        end = time.monotonic() + _RELEASE_S
        while port is not None and not port_is_free(port) and time.monotonic() < end:
            time.sleep(0.5)
    raise RunError(f"NNI's manager did not start in {TRIES} tries: {reasons[-1]}")


def _try(config: Any, port: int) -> tuple[Any, str | None]:
    """Start the manager once; return the experiment, and why it did not start, or `None` if it did."""
    from nni.experiment import Experiment, RunMode

    wait_longer()
    experiment = Experiment(config)
    try:
        experiment.start(port, False, RunMode.Detach)
        found = experiment.get_experiment_profile()["id"]
        if found != experiment.id:
            return experiment, f"another manager, of experiment {found}, answers there"
        end = time.monotonic() + _INITIALIZATION_S
        while experiment.get_status() in _STARTING and time.monotonic() < end:
            time.sleep(0.5)
        if experiment.get_status() == "ERROR" and not experiment.list_trial_jobs():
            errors = experiment.get_experiment_profile().get("errors") or []
            raise RuntimeError("; ".join(map(str, errors)) or "it reports an error")
    except BaseException as error:  # Ctrl-C too must not leave a manager behind
        told = last_error(Path(config.canonical_copy().experiment_working_directory) / experiment.id / "log")
        if experiment._proc is not None:
            with contextlib.suppress(Exception), _nni_silent():
                experiment.stop()
        _kill_managers(experiment.id)
        if not isinstance(error, Exception):
            raise
        return experiment, " ".join(f"{error}{f' ({told})' if told else ''}".split())
    return experiment, None


def stop_manager(experiment: Any) -> None:
    """Stop NNI's manager and its trials.

    If the manager does not end in time, or this process is interrupted once more, the manager is killed. NNI's error
    messages about this are suppressed, because nobody can act on them.

    Args:
        experiment: NNI's experiment.
    """
    from nni.experiment import rest

    _log.info("stopping NNI's manager and its trials")
    process, experiment._proc = experiment._proc, None  # so that NNI does not stop it again
    try:
        with _nni_silent():
            with contextlib.suppress(Exception):  # such as a time-out on a busy machine; the manager stops anyway
                rest.delete(experiment.port, "/experiment", experiment.url_prefix)
            process.wait(_STOP_S)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        _kill_managers(experiment.id)
    with _nni_silent():
        experiment.stop()


@contextlib.contextmanager
def _nni_silent() -> Iterator[None]:
    """Context manager in which NNI's log of the experiment is left out, unless details are asked for."""
    log = logging.getLogger("nni.experiment")
    before = log.level
    if not _log.isEnabledFor(logging.DEBUG):
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _kill_managers(experiment: str) -> None:
    """Kill the managers of an experiment that this process has started. NNI does not know one that is just starting."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if experiment in words and any(word.endswith("main.js") for word in words):
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()


def last_error(log: Path) -> str:
    """Return the last error in the logs of the manager and its tuner, without its time; empty if there is none."""
    for name in ("nnimanager.log", "nnictl_stderr.log", "dispatcher.log"):
        try:
            lines = (log / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        errors = [line for line in lines if "ERROR" in line or "Error:" in line]
        if errors:
            return f"{name}: {errors[-1].split('] ', 1)[-1][:200]}"
    return ""


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Context manager in which no other `run` of this user chooses a port and starts a manager."""
    path = cache_folder() / "manager.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        lock.acquire(timeout=120)
    except (OSError, filelock.Timeout):  # without the lock, the check of the manager's id still finds a foreign one
        yield
        return
    try:
        yield
    finally:
        lock.release()


def gpus_seen_by_nni() -> int:
    """Return the number of GPUs that NNI's local training service can use; it finds them by NVIDIA's NVML."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except Exception:  # no driver, no library, or a version of it that fails
        return 0
