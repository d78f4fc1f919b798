"""The processes of one training on several devices, and the variables by which launchers number processes.

Lightning takes its number among the processes from the environment. Variables that another launcher has left there,
such as torchrun or srun, would let a training wait for processes that do not exist, or write no results.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

_log = logging.getLogger(__name__)
# The main process leaves its number here for the processes that Lightning starts for the other devices.
_MAIN = "NNI_PROXYLESS_RANKS_OF"
_OF_LAUNCHERS = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
    "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK",
    "JSM_NAMESPACE_SIZE",
)  # fmt: skip


def is_main_process() -> bool:
    """Whether this is the main process, and not one that Lightning has started for another device."""
    return os.environ.get(_MAIN) != str(os.getppid()) or os.environ.get("LOCAL_RANK", "0") == "0"


@contextlib.contextmanager
def own_processes() -> Iterator[None]:
    """Context manager in which a training consists of this process and those that it starts itself.

    Variables of other launchers are hidden meanwhile, and those that Lightning sets are removed afterwards.
    """
    if not is_main_process() or os.environ.get(_MAIN) == str(os.getpid()):
        yield
        return
    hidden = {name: os.environ.pop(name) for name in (*_OF_LAUNCHERS, _MAIN) if name in os.environ}
    numbers = {name: value for name, value in hidden.items() if name.endswith(("RANK", "PROCID")) and value != "0"}
    if numbers:
        told = ", ".join(f"{name}={value}" for name, value in sorted(numbers.items()))
        _log.warning("ignoring %s: this process trains alone, and starts its own processes for 'devices'", told)
    os.environ[_MAIN] = str(os.getpid())
    try:
        yield
    finally:
        for name in (*_OF_LAUNCHERS, _MAIN):
            os.environ.pop(name, None)
        os.environ.update(hidden)
