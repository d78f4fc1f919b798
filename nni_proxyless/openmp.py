"""How long threads of GNU OpenMP, which PyTorch uses on Linux, wait in a loop for each other.

At the end of each operator, the threads of PyTorch wait for the slowest one. By default, GNU OpenMP does this in a loop
of 300,000 rounds before it leaves the core to another thread. On a machine whose cores are also used by other programs,
the loop takes the core from the thread that it waits for. A training step on two threads then took 10 to 20 times as
long as with the 1,000 rounds that the commands use. On a quiet machine there was no clear difference.

Programs that are measured get the waiting time of the user's own environment, because deployed programs have that one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_ROUNDS = "GOMP_SPINCOUNT"
_CHOSEN_BY_USER = (_ROUNDS, "OMP_WAIT_POLICY")
_MARK = "NNI_PROXYLESS_SPINCOUNT"  # says that the rounds are ours, also to processes that inherit the environment
_FEW = "1000"


def wait_briefly() -> None:
    """Let threads wait in a short loop in this process and those that it starts, unless the user has set the time.

    GNU OpenMP reads the variable when it is loaded, so PyTorch must not be imported before.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _CHOSEN_BY_USER):
        os.environ.update({_ROUNDS: _FEW, _MARK: _FEW})


def environment_to_measure(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of an environment without the short loop, for a program that is measured."""
    ours = _MARK in environment and environment.get(_ROUNDS) == environment[_MARK]
    return {name: value for name, value in environment.items() if name != _MARK and not (ours and name == _ROUNDS)}
