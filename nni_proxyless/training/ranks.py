"""The processes of one training on several devices and machines, and the variables by which launchers number them.

Lightning takes its number among the processes from the environment. Variables that another launcher has left there,
such as torchrun or srun, would let a training wait for processes that do not exist, or write no results. So they are
hidden, except for a training that asks for exactly the processes that torchrun has started, or for several machines.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from ..errors import InputError, RunError

_log = logging.getLogger(__name__)
WAITING = timedelta(hours=3)
"""Time that processes of a training wait for each other, while the main process validates."""
# The main process leaves its number here for the processes that Lightning starts for the other devices.
_MAIN = "NNI_PROXYLESS_RANKS_OF"
# A process that is not the first one of several machines, or of torchrun's, leaves its own number here.
_FURTHER = "NNI_PROXYLESS_FURTHER_RANK"
_TORCHRUN = "TORCHELASTIC_RUN_ID"
# By these, the machines of a training that Lightning starts on each of them find each other.
_OF_NODES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
_OF_LAUNCHERS = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK",
    "JSM_NAMESPACE_SIZE",
)  # fmt: skip


def is_main_process() -> bool:
    """Whether this is the main process of its training: not one of a further device, and not on a further machine."""
    if os.environ.get(_FURTHER) in (str(os.getpid()), str(os.getppid())):
        return False
    return os.environ.get(_MAIN) != str(os.getppid()) or os.environ.get("LOCAL_RANK", "0") == "0"


def started_by_torchrun() -> bool:
    """Whether torchrun has started the processes of the training that is running (within `own_processes`)."""
    return _TORCHRUN in os.environ


@contextlib.contextmanager
def own_processes(devices: int = 1, num_nodes: int = 1) -> Iterator[None]:
    """Context manager in which a training consists of the processes that its settings ask for.

    They are this process and those that it starts itself; the same on `num_nodes` machines, on each of which the user
    starts the command; or all processes of torchrun, if it has started as many. Variables of other launchers are
    hidden meanwhile, and those that Lightning sets are removed afterwards.

    Args:
        devices: Number of processes on each machine.
        num_nodes: Number of machines.

    Raises:
        InputError: There are several machines, and the variables are missing by which they find each other.
    """
    if not is_main_process() or os.environ.get(_MAIN) == str(os.getpid()):
        yield
        return
    torchrun = _of_torchrun(devices, num_nodes)
    kept = _OF_LAUNCHERS if torchrun else _OF_NODES if num_nodes > 1 else ()
    number = os.environ.get("RANK" if torchrun else "NODE_RANK", "0") if kept else "0"
    if num_nodes > 1 and not torchrun:
        _check_nodes(num_nodes)
    names = [name for name in (*_OF_LAUNCHERS, _MAIN, _FURTHER) if name not in kept]
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    before = {name: os.environ[name] for name in kept if name in os.environ}
    numbers = {name: value for name, value in hidden.items() if name.endswith(("RANK", "PROCID")) and value != "0"}
    if numbers:
        told = ", ".join(f"{name}={value}" for name, value in sorted(numbers.items()))
        _log.warning("ignoring %s: this process trains alone, and starts its own processes for 'devices'", told)
    os.environ[_MAIN] = str(os.getpid())
    if number != "0":
        os.environ[_FURTHER] = str(os.getpid())
    try:
        yield
    finally:
        for name in (*_OF_LAUNCHERS, _MAIN, _FURTHER):
            os.environ.pop(name, None)
        os.environ.update({**hidden, **before})


def _of_torchrun(devices: int, num_nodes: int) -> bool:
    """Whether torchrun has started exactly the processes that a training asks for."""
    wanted = {"WORLD_SIZE": devices * num_nodes, "LOCAL_WORLD_SIZE": devices}
    found = all(os.environ.get(name) == str(count) for name, count in wanted.items())
    return _TORCHRUN in os.environ and devices * num_nodes > 1 and found


def _check_nodes(num_nodes: int) -> None:
    missing = [name for name in _OF_NODES if not os.environ.get(name)]
    number = os.environ.get("NODE_RANK", "")
    if missing or not number.isdecimal() or int(number) >= num_nodes:
        raise InputError(
            f"num_nodes is {num_nodes}: start the command on each machine with NODE_RANK from 0 to {num_nodes - 1} and "
            f"MASTER_ADDR and MASTER_PORT of the first one, or with torchrun; got {number or 'no NODE_RANK'}"
        )


def check_same_start(trainer: Any) -> None:
    """Check that all processes of a training begin with the same epoch.

    Args:
        trainer: Lightning trainer of the running fit.

    Raises:
        RunError: They do not. Then machines see different folders of results.
    """
    first = trainer.strategy.broadcast(trainer.current_epoch)
    if first != trainer.current_epoch:
        raise RunError(
            f"the main process begins with epoch {first + 1}, and process {trainer.global_rank} with epoch "
            f"{trainer.current_epoch + 1}; all machines must see the same folder of results"
        )
