"""The GPU check: its dry run on the CPU, its checks, and what happens when a part fails or takes too long."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from benchmarks.constants import GPU_RESULTS
from benchmarks.gpu import (
    check,
    cifar10,
    correctness,
    gate_checks,
    imagenet_epoch,
    latency,
    memory,
    packages,
    search_cost,
)
from benchmarks.gpu.made_up import TINY_SPACE
from benchmarks.gpu.part import DEVICE_COLUMNS, Row, Setting, _run, check_place, parse
from benchmarks.results_csv import read_rows
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY
from tests.warm import warm_python
from tests.warm_changes import MEASURE_ONCE, PYTHON

MODULES: dict[str, Any] = {
    "correctness": correctness, "search_cost": search_cost, "memory": memory, "latency": latency,
    "imagenet_epoch": imagenet_epoch, "cifar10": cifar10,
}  # fmt: skip
# Columns that are no numbers, or may be empty.
TEXTS = {"check", "ok", "step", "memory_format", "measure", "verdict", "images", "precision", "what", "allowed"}
OPTIONAL = {"top1_test", "predicted_ms", "budget_ms", "calibration_error"}


@pytest.mark.slow(120)
def test_the_dry_run_runs_every_part(tmp_path: Path) -> None:
    before = set(GPU_RESULTS.rglob("*"))
    environment = warm_python(tmp_path)  # each part imports PyTorch, Lightning and NNI
    done = subprocess.run(
        [REPOSITORY / "benchmarks" / "gpu" / "check.sh", "--toy", "--output", str(tmp_path)],
        capture_output=True, text=True, check=False,
        env={**environment, "PYTHON": environment[PYTHON], MEASURE_ONCE: "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout.split("\n\n")[-1].splitlines()
    assert [line.split()[:2] for line in table] == [["part", "state"], *([part, "ok"] for part in check.PARTS)]
    for part, module in MODULES.items():
        (path,) = tmp_path.glob(f"{part}-*.csv")
        rows = read_rows(path)
        assert tuple(rows[0]) == (*module.COLUMNS, *DEVICE_COLUMNS)
        for row in rows:
            check_row(row, module.COLUMNS)
    assert {row["ok"] for row in read_rows(next(tmp_path.glob("correctness-*")))} == {"True"}
    assert {row["of_training"] for row in read_rows(next(tmp_path.glob("memory-*")))} > {"1.0"}
    assert len(list(tmp_path.glob("latency_table-*.yml"))) == 1
    assert set(GPU_RESULTS.rglob("*")) == before


def check_row(row: dict[str, str], columns: Iterable[str]) -> None:
    assert row["device"].startswith("cpu ")
    assert row["torch"] == torch.__version__.split("+")[0] or row["torch"] == torch.__version__
    for column in columns:
        value = row[column]
        if column in OPTIONAL and value == "":
            continue
        if column in TEXTS:
            assert value or column == "allowed"
        else:
            assert math.isfinite(float(value)), f"{column}: {value}"


def test_results_of_the_cpu_stay_away_from_those_of_gpus() -> None:
    check_place("cuda", False, GPU_RESULTS)
    for device, toy in (("cpu", True), ("cpu", False), ("cuda", True)):
        with pytest.raises(SystemExit, match="results of a dry run do not belong in"):
            check_place(device, toy, GPU_RESULTS / "folder")


def test_without_a_gpu_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["benchmarks/gpu/check.sh", "--output", str(tmp_path)], cwd=REPOSITORY, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "PyTorch sees no CUDA device here; benchmarks/gpu/check.sh --toy is a dry run on the CPU\n"
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["memory", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        parse("A part.")
    assert (
        "PyTorch sees no CUDA device here; --device cpu --toy --output FOLDER is a dry run" in capsys.readouterr().err
    )


def test_an_item_that_fails_does_not_stop_the_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> Iterable[Row]:
        yield {"a": 1, "b": 2}
        raise ValueError("on purpose")

    items: list[tuple[str, Callable[[], Iterable[Row]]]] = [
        ("first", wrong), ("second", lambda: [{"a": 3, "b": 4}]), ("third", lambda: [{"a": 5}])
    ]  # fmt: skip
    setting = Setting("cpu", True, tmp_path / "out", 60.0, tmp_path)
    assert _run("part", ("a", "b"), items, setting) == 1
    rows = read_rows(setting.path("part"))
    assert [(row["a"], row["b"]) for row in rows] == [("1", "2"), ("3", "4")]
    assert rows[0]["nni"] == "3.0"
    told = capsys.readouterr()
    assert "2 failed: first, third" in told.err
    assert "ValueError: on purpose" in told.err
    assert "second, " in told.out
    assert _run("part", ("a", "b"), items[1:2], setting) == 0
    assert [row["a"] for row in read_rows(setting.path("part"))] == ["3"]  # a new run replaces the old rows


def test_a_part_ends_when_its_time_is_over(tmp_path: Path) -> None:
    outcome = check.run_part("memory", "cpu", True, tmp_path, 0.5)
    assert (outcome.state, outcome.rows, outcome.file) == ("time over", 0, None)
    assert outcome.seconds < 10
    words = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in words if "benchmarks.gpu.memory" in line and str(tmp_path) in line]


def test_a_part_that_is_not_finished_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter(["ok", "time over"])
    monkeypatch.setattr(check, "run_part", lambda part, *_: check.Outcome(part, next(outcomes), 1.0))
    monkeypatch.setattr("sys.argv", ["check", "--toy", "--output", str(tmp_path), "--parts", "memory", "latency"])
    assert check.main() == 1
    monkeypatch.setattr("sys.argv", ["check", "--toy", "--output", str(tmp_path), "--minutes", "0.1"])
    assert check.main() == 1  # no part is started


def test_checks_notice_wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gate_checks.straight_through_gates

    def doubled(logits: Tensor, sample: Any) -> Tensor:
        gates = right(logits, sample)
        return gates + (gates - gates.detach())

    assert gate_checks.full_gradient("cpu", torch.float64) < 1e-9
    assert gate_checks.two_path_gradient("cpu", torch.float64) < 1e-9
    monkeypatch.setattr(gate_checks, "straight_through_gates", doubled)
    assert gate_checks.full_gradient("cpu", torch.float64) == pytest.approx(1.0)
    assert gate_checks.two_path_gradient("cpu", torch.float64) == pytest.approx(1.0)


def test_checks_notice_what_else_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = gate_checks.SupernetChecks(SpaceSpec.from_dict(TINY_SPACE), 8, "cpu")
    assert gate_checks.rescaling("cpu") < 1e-6
    assert checks.against_cpu("full", False, torch.float32) < 1e-3
    assert checks.frozen() == checks.inactive() == 0
    monkeypatch.setattr(gate_checks, "rescale_pairs", lambda *_: None)
    assert gate_checks.rescaling("cpu") > 1e-3
    made = checks.supernet

    def moved(*args: Any) -> Any:
        network = made(*args)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        return network

    monkeypatch.setattr(checks, "supernet", moved)
    assert checks.against_cpu("full", False, torch.float32) > 1e-3


def test_packages_that_another_machine_lacks(tmp_path: Path) -> None:
    file = tmp_path / "present.txt"
    file.write_text("Torch==2.11.0\nsetuptools==82.0\nPyYAML\npydantic==2.11\n")
    present = packages.read_present(file)
    assert present == {"torch": "2.11.0", "setuptools": "82.0", "pyyaml": "", "pydantic": "2.11"}
    lacking = packages.missing(present, "3.12")
    assert {"nni", "setuptools", "json-tricks", "numpy"} <= set(lacking)
    assert not {"torch", "torchvision", "nvidia-cublas", "pyyaml", "pydantic", "nni-proxyless", "pytest"} & set(lacking)
    packages.copy(packages.distribution("nni"), tmp_path / "site")
    assert (tmp_path / "site" / "nni" / "nas" / "strategy" / "__init__.py").is_file()
    assert not (tmp_path / "site" / "nni_node").exists()
