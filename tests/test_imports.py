"""Imports point down, and a trial asks for its parameters before torch is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PURE = [
    "gates",
    "objective",
    "decode",
    "ranking",
    "architecture",
    "latency",
    "latency.isolated",
    "space_spec",
    "operators",
]


def loaded(statement: str, prefix: str, tmp_path: Path) -> bool:
    code = (
        f"import sys; {statement}; print(any(m == {prefix!r} or m.startswith({prefix + '.'!r}) for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    return done.stdout.strip().splitlines()[-1] == "True"


@pytest.mark.parametrize("room", PURE)
def test_the_mathematics_never_imports_nni(room: str, tmp_path: Path) -> None:
    assert not loaded(f"import nni_proxyless.{room}", "nni", tmp_path)


@pytest.mark.parametrize("room", ["cli", "recipe", "nni_bridge.trial"])
def test_what_a_trial_needs_first_does_not_import_torch(room: str, tmp_path: Path) -> None:
    assert not loaded(f"import nni_proxyless.{room}", "torch", tmp_path)
    assert loaded("import nni_proxyless; nni_proxyless.ProxylessNAS", "torch", tmp_path)  # the check can fail


@pytest.mark.parametrize(
    "first", ["nni_proxyless.strategy", "nni_proxyless.supernet", "nni_proxyless.penalty", "nni.nas.strategy"]
)
def test_nnis_own_strategies_survive_our_import_in_any_order(first: str, tmp_path: Path) -> None:
    """NNI replaces DARTS by a stub when nni.nas.oneshot is imported before nni.nas.strategy."""
    code = (
        f"import warnings; warnings.simplefilter('ignore'); import {first}; import nni_proxyless.strategy;"
        "import nni.nas.strategy as s; print(s.DARTS.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip().splitlines()[-1] == "nni.nas.oneshot.pytorch.strategy"
