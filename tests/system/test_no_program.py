"""Nothing that reads results, tables or architectures starts a program, or imports code, that a file names."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.latency import LatencyTable, isolated
from nni_proxyless.latency.validate import usable_backend
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.weights import save_weights
from nni_proxyless.report import page
from nni_proxyless.report.render import Drawn
from nni_proxyless.search.targets import described_by
from tests.helpers import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded"
MODULE = "nni_proxyless_hostile_module"
EVIL = f"{MODULE}:Evil"


class Started(BaseException):
    """A program was started. No command catches this."""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a stranger: every recipe and every table names a command, and recipes a class."""
    base = tmp_path_factory.mktemp("results")
    place = Path(shutil.copytree(RECORDED, base / "stranger"))
    command = f"touch {base}/started; echo 1.0; true {{model}}"
    for path in (*place.rglob("recipe.yml"), *place.rglob("latency_table.yml")):
        content = yaml.safe_load(path.read_text())
        if "operators" in content:
            content["backend"] = {"name": "command", "version": "as installed", "command": command}
        else:
            content["targets"] = {str(content.get("target")): {"backend": "command", "command": command}}
            content["strategy"] = EVIL
        path.write_text(yaml.safe_dump(content))
    baseline = Path(shutil.copytree(place / "quickstart" / "cpu_torch" / "retrained", place / "quickstart" / "half"))
    found = json.loads((baseline / "architecture.json").read_text())
    (baseline / "architecture.json").write_text(json.dumps({**found, "target": None}))
    weights = place / "quickstart" / "cpu_torch" / "retrained"
    save_weights(Architecture.load(weights / "architecture.json").build(), weights / "weights.pt")
    code = f"open({str(base / 'imported')!r}, 'w')\nclass Evil: pass\n"
    for path in (place, *(recipe.parent for recipe in place.rglob("recipe.yml"))):
        (path / f"{MODULE}.py").write_text(code)
    # A table that somebody has put into the cache.
    kept = base / "cache" / "tables" / "a.yml"
    kept.parent.mkdir(parents=True)
    shutil.copy(place / "quickstart" / "cpu_torch" / "latency_table.yml", kept)
    described_by(kept).write_text(json.dumps({"space": {}, "backend": {"name": "command", "command": command}}))
    return place


@pytest.fixture
def folder(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of the stranger as the working directory, where starting a program is an error."""
    monkeypatch.chdir(stranger)
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(stranger.parent / "cache"))

    def start(*words: object, **_: object) -> Any:
        raise Started(words)

    monkeypatch.setattr(subprocess, "Popen", start)
    for name in ("system", "popen", "execv", "execve", "execvp", "execvpe", "posix_spawn", "posix_spawnp", "fork"):
        monkeypatch.setattr(os, name, start)
    monkeypatch.setattr(page, "draw", lambda _: Drawn([], "", b""))  # drawing takes seconds
    return stranger


TABLE = "quickstart/cpu_torch/latency_table.yml"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("report quickstart", 0),
        ("show quickstart/cpu_torch", 0),
        ("show quickstart/cpu_torch/retrained --table TABLE --against mobilenet_v2_0.5", 0),
        ("latency show TABLE", 0),
        ("latency list", 0),
        ("latency compare TABLE quickstart/cpu_onnxruntime/latency_table.yml", 0),
        ("latency predict TABLE --architectures quickstart/cpu_torch/architecture.json", 0),
        ("latency validate TABLE --networks 2", 2),
        ("latency validate TABLE --networks 2 --backend torch --command 'touch x {model}'", 2),
        ("latency import TABLE --format proxylessnas --out out.yml", 2),
        ("latency suggest --basis TABLE --space mobilenetv2_digits --networks 2 --out out.csv", 0),
        ("decode interrupted_0_1", 0),
        ("decode interrupted_0_1 --table interrupted_0_1/latency_table.yml --budget-ms 5 --out d --front f.csv", 0),
        ("export quickstart/cpu_torch/retrained --no-measure --images 2 --format state_dict --out exported", 0),
    ],
)  # fmt: skip
def test_no_command_that_reads_starts_anything(line: str, code: int, folder: Path) -> None:
    before = set(sys.modules)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(line.replace("TABLE", TABLE)))
    assert ended.value.code == code
    assert sorted(path.name for path in folder.parent.iterdir() if path.name in ("started", "imported")) == []
    assert MODULE not in set(sys.modules) - before


def test_a_command_on_the_command_line_is_started(folder: Path) -> None:
    """Otherwise the tests above could not fail."""
    words = "--space mobilenetv2_digits --backend command --command 'touch x {model}' --out out.yml"
    with pytest.raises(Started):
        main(shlex.split(f"latency measure {words}"))


def test_exports_measure_with_no_command_of_a_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables near the network name a command. The export measures with the runtime of the format instead."""
    used = []

    def processes(_jobs: Any, backend: Any, _progress: Any) -> Any:
        used.append(backend.name)
        return [[([1.0, 1.0], [1.0, 1.0], None)]]

    monkeypatch.setattr(isolated, "_in_fresh_processes", processes)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split("export quickstart/cpu_torch/retrained --images 2 --format state_dict torchscript --out out"))
    assert ended.value.code == 0, capsys.readouterr().err
    assert used == ["torch", "torch"]
    tables = [LatencyTable.load(path) for path in folder.rglob("latency_table.yml")]
    assert {table.backend for table in tables} == {"command"}
    for names in (("torch",), ("onnxruntime", "openvino", "mnn", "ncnn")):
        backend, table = usable_backend(tables, names, "float32")
        assert (backend.name, table) == (names[0], None)
