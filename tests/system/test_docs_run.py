"""Every command block and every Python block of the documentation is executed, in a shortened form.

The commands run in a folder with the files that a reader would have: copies of the experiments with few epochs, a
finished quickstart, tables, measurements, and programs that simulate a phone and a board.
"""

from __future__ import annotations

import csv
import random
import re
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from PIL import Image
from sklearn.datasets import load_digits

from nni_proxyless import Architecture, LatencyTable
from nni_proxyless.latency import random_architecture
from nni_proxyless.latency.counts import counts_of_space
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY, Workplace, wait_until
from tests.warm import run_warm
from tests.warm_changes import FEW_SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.documentation]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "experiments").glob("*/README.md")),
]
PROGRAMS = ("nni-proxyless", "nnictl", "make")
# Commands that other tests execute.
ELSEWHERE = {
    "make test": "this is what is running",
    "nnictl create --config experiments/quickstart/config.yml": "tests/system/test_end_to_end.py, as it stands",
    "nnictl create --config experiments/remote/config.yml": "tests/system/test_remote.py, through SSH",
    "nni-proxyless run experiments/baselines/config.yml": "tests/system/test_experiments.py, all strategies",
}
# Replacements that shorten commands: fewer networks and epochs, and a smaller space.
SHORTER = (
    (r"--networks 30\b", "--networks 2"),
    (r"^(nni-proxyless latency measure)", r"\1 --accept"),  # other tests run meanwhile
    (r"--space \S+(?= --backend command)", "--space tiny.yml --networks 2"),
    (r"^(nni-proxyless retrain \S+)", r"\1 epochs=2 warmup_epochs=1"),
    (r"^(nni-proxyless search \S+)", r"\1 epochs=2 warmup_epochs=1 finalists=4 bn_batches=2 accept_tables=true"),
    (r"(--format onnx int8)", r"\1 --accept-loss"),  # a network of two epochs
    (r"-api sync -t 1\b", "-api sync -niter 5"),
)
NEEDS_CUDA = r"--device cuda"


@dataclass(frozen=True)
class Block:
    """Fenced code block of a page."""

    page: Path
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        if self.language or not self.text.startswith(PROGRAMS):
            return []
        return [line for line in self.text.splitlines() if line.startswith(PROGRAMS)]


def blocks(page: Path) -> list[Block]:
    return [Block(page, *found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


# These pages use the quickstart's networks. In one worker, each command is executed once.
TOGETHER = {"README.md", "docs/budgets.md", "docs/nni.md", "docs/retrain.md"}
WITH_COMMANDS = [page for page in PAGES if any(block.commands for block in blocks(page))]
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def made_once(name: str, shared: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that the first worker makes. The others wait for it."""
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            make(shared / f"{name}.unfinished")
            (shared / f"{name}.unfinished").rename(shared / name)
    return shared / name


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Folder for files that all workers use."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="module")
def tables(shared: Path) -> Path:
    """Folder with all files that the pages mention, except the results of the quickstart."""
    return made_once("docs_tables", shared, lambda folder: _provide_files(Workplace(folder)))


@pytest.fixture(scope="module")
def furnished(tables: Path, shared: Path) -> Path:
    """Folder with all files that the pages mention."""

    def make(folder: Path) -> None:
        place = Workplace(folder, tables)
        place.environment[FEW_SAMPLES] = "1"
        place.start_trials_warm()
        _run_the_quickstart(place)

    return made_once("docs", shared, make)


@pytest.fixture(scope="module")
def place(furnished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Own copy of the folder with all files that the pages mention."""
    yield from _copy(furnished, tmp_path_factory)


@pytest.fixture(scope="module")
def place_before_a_search(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Own copy of the folder without the results of the quickstart, for which nobody has to wait."""
    yield from _copy(tables, tmp_path_factory)


def _copy(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    place = Workplace(tmp_path_factory.mktemp("docs"), source)
    place.environment[FEW_SAMPLES] = "1"
    place.start_trials_warm()
    place.environment["PATH"] = f"{place.folder / 'bin'}:{place.environment['PATH']}"
    try:
        yield place
    finally:
        place.command("nnictl", "stop", "--all")
        for process in place.processes():
            process.kill()


@pytest.fixture(scope="module")
def executed() -> set[str]:
    """Commands that have been executed and need not be executed again, because the workplace keeps their results."""
    return {"nni-proxyless run experiments/quickstart/config.yml"}  # `_run_the_quickstart` has executed it


def _provide_files(place: Workplace) -> None:
    for experiment in ("quickstart", "budgets"):
        shutil.copytree(
            REPOSITORY / "experiments" / experiment, place.folder / "experiments" / experiment, dirs_exist_ok=True
        )
        place.experiment = place.folder / "experiments" / experiment
        # Tables of few samples on a busy machine may be far off, so the budget is easy to keep.
        short = {"epochs": 2, "warmup_epochs": 1, "finalists": 4, "bn_batches": 2}
        place.change("recipe.yml", {**short, "accept_tables": True, "budget_fraction": 0.8})
    space = {"budget_fraction": {"_type": "choice", "_value": [0.7]}}
    place.change("config.yml", {"searchSpace": space})
    shutil.copytree(REPOSITORY / "experiments" / "devices", place.folder / "experiments" / "devices")
    recipes = [block.text for block in blocks(REPOSITORY / "docs" / "budgets.md") if block.language == "yaml"]
    (both,) = [text for text in recipes if "results/quickstart" in text]
    (place.folder / "both.yml").write_text(both)
    _write_programs(place)
    _write_tables(place)
    _write_photos(place.folder / "photos")


def _run_the_quickstart(place: Workplace) -> None:
    place.experiment = place.folder / "experiments" / "quickstart"
    place.change("config.yml", {"trialConcurrency": 2})
    done = place.command("nni-proxyless", "run", "experiments/quickstart/config.yml", "--port", str(place.port))
    assert done.returncode == 0, done.stderr
    found = place.folder / "results" / "quickstart"
    _provide_network(place)
    for name in ("my_device", "my_phone", "my_board"):
        shutil.copy(found / "cpu_onnxruntime" / "latency_table.yml", place.folder / f"{name}.yml")


def _provide_network(place: Workplace) -> None:
    """Copy the files that the Python blocks load. This is repeated, because some blocks overwrite them."""
    found = place.folder / "results" / "quickstart"
    shutil.copy(found / "cpu_torch" / "architecture.json", place.folder / "architecture.json")
    shutil.copy(found / "cpu_torch" / "weights.pt", place.folder / "weights.pt")
    shutil.copy(found / "cpu_onnxruntime" / "architecture.json", place.folder / "other.json")


def _write_programs(place: Workplace) -> None:
    """Write the scripts of docs/latency.md, and programs that simulate adb, ssh and scp on this machine."""
    printed = blocks(REPOSITORY / "docs" / "latency.md")
    (phone,) = [block.text for block in printed if block.language == "sh"]
    (bench,) = [block.text for block in printed if "sys.argv" in block.text]
    (place.folder / "bench.py").write_text(bench)
    adb = """#!/bin/sh
    # What onnxruntime_perf_test prints, from a run of the same model.
    case "$1" in
      push) cp "$2" pushed.onnx ;;
      shell) echo "Session creation time cost: 0.03 s"
             echo "Total inference requests: 50"
             echo "Average inference time cost total: $(python3 bench.py pushed.onnx 1) ms"
             echo "P999 Latency: 0.5 s" ;;
      *) exit 1 ;;
    esac
    """
    programs = {
        "phone.sh": phone,
        "bin/adb": adb,
        "bin/scp": '#!/bin/sh\ncp "$2" "${3#pi:}"\n',
        "bin/ssh": '#!/bin/sh\nshift\nexec "$@"\n',
    }
    for name, text in programs.items():
        path = place.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(line.removeprefix("    ") for line in text.splitlines()) + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _write_tables(place: Workplace) -> None:
    """Write made-up measurements of whole networks of the quickstart's space, and tables fitted to some of them."""
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")
    labels = [layer.label for layer in spec.layers]
    draw = random.Random(0)
    rows = [random_architecture(spec, draw).choices for _ in range(80)]

    def measured(path: Path, count: int, device: int) -> Path:
        weight = {1: (3.0, 1.0), 2: (1.0, 4.0), 3: (2.0, 2.0)}[device]

        def cost(names: dict[str, str]) -> float:
            operators = spec.operators(names)
            work = sum(op.multiply_adds for op in operators) / 1e6
            return weight[0] * work * draw.uniform(0.99, 1.01) + weight[1] * 0.3 * len(operators)

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*labels, "latency_ms"])
            writer.writerows([[*(row[label] for label in labels), cost(row)] for row in rows[:count]])
        return path

    measured(place.folder / "measured.csv", 80, 1)
    measured(place.folder / "ten.csv", 10, 3)
    for name, device in {"pixel3": 1, "xeon": 2, "titan": 3, "board": 1, "phone": 3}.items():
        source = measured(place.folder / f"{name}.csv", 80, device)
        done = place.command(
            "nni-proxyless", "latency", "fit", "--measurements", str(source), "--device", name,
            "--out", str(place.folder / f"{name}.yml"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    shutil.copy(place.folder / "measured.csv", place.folder / "candidates.csv")
    counts = counts_of_space(spec)
    with (place.folder / "counts.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "candidate", *counts.columns])
        writer.writerows([choice.layer, choice.candidate, *row] for choice, row in counts.values.items())
    tiny = {
        "schema": "nni-proxyless/space@1", "name": "tiny", "input": {"channels": 1, "size": 8},
        "stem": {"width": 8, "stride": 1}, "first_block": {"width": 8},
        "stages": [{"width": 8, "depth": 1, "stride": 2}],
        "candidates": {"kernels": [3, 5], "expansions": [1], "skip": False}, "head": {"width": 16}, "classes": 3,
    }  # fmt: skip
    (place.folder / "tiny.yml").write_text(yaml.safe_dump(tiny))


def _write_photos(folder: Path) -> None:
    """Write handwritten digits of three classes as image files, in two parts."""
    images, labels = load_digits(return_X_y=True)
    for label in range(3):
        for number, pixels in enumerate(images[labels == label][:120]):
            path = folder / ("train" if number < 90 else "val") / f"digit_{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8))
            grey.resize((32, 32)).convert("RGB").save(path)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.xdist_group("results")) if name_of(page) in TOGETHER else page
        for page in WITH_COMMANDS
    ],
    ids=name_of,
)
def test_commands(page: Path, request: pytest.FixtureRequest, executed: set[str], shared_data: Path) -> None:
    needed = "place" if name_of(page) in TOGETHER else "place_before_a_search"
    place: Workplace = request.getfixturevalue(needed)
    published = shared_data / "latency" / "mobile" / "pixel1_proxylessnas.yaml"
    shutil.copy(published, place.folder / published.name)
    for command in [command for block in blocks(page) for command in block.commands]:
        run(shlex.join(shlex.split(command, comments=True)), place, executed)


def run(command: str, place: Workplace, executed: set[str]) -> None:
    if command == "make quickstart":
        # Without the option, a nested make (as in docs-check) would print the name of its folder as the last line.
        made = subprocess.run(
            ["make", "-n", "--no-print-directory", "quickstart"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
        command = made.stdout.splitlines()[-1].removeprefix(".venv/bin/")
        assert command.startswith("nni-proxyless run")
    if command in ELSEWHERE or command in executed:
        return
    executed.add(command)
    for pattern, shorter in SHORTER:
        command = re.sub(pattern, shorter, command)
    # Two pages run at a time. Each has its own port, because a manager might take a port that seemed to be free.
    if command.startswith(("nnictl create", "nni-proxyless run")):
        command += f" --port {place.port}"
    start = time.monotonic()
    done = place.command(*shlex.split(command), timeout=900)
    print(f"{time.monotonic() - start:.0f} s: {command}")
    if re.search(NEEDS_CUDA, command) and not torch.cuda.is_available():
        assert done.returncode == 2, command
        assert "CUDA" in done.stderr
        return
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    if command.startswith("nnictl create"):
        wait_until(lambda: place.api("check-status")["status"] == "DONE", seconds=600)
        assert {job["status"] for job in place.api("trial-jobs")} == {"SUCCEEDED"}
        place.command("nnictl", "stop", "--all")


# Code that runs before a block, because the block assumes that the reader has an NNI evaluator.
BEFORE = """
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader
from sklearn.datasets import load_digits
images, labels = (torch.tensor(part[:64]) for part in load_digits(return_X_y=True))
images = torch.nn.functional.interpolate(images.reshape(-1, 1, 8, 8).float() / 16, (32, 32))
part = DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=32, drop_last=True)
evaluator = Classification(
    train_dataloaders=part, val_dataloaders=part, num_classes=10, max_epochs=1, limit_train_batches=2,
    enable_progress_bar=False, logger=False, enable_checkpointing=False, accelerator="cpu",
)
"""


@pytest.mark.parametrize("number", range(len(PYTHON)), ids=lambda i: f"{name_of(PYTHON[i].page)}-{i}")
def test_python(number: int, place: Workplace) -> None:
    block = PYTHON[number]
    if "sys.argv" in block.text:
        return  # the block is bench.py, which the commands of the same page run
    _provide_network(place)
    found = Architecture.load(place.folder / "other.json")
    table = LatencyTable.load(place.folder / "my_device.yml")
    changes = {
        '"mobilenetv2_imagenet"': '"mobilenetv2_digits"',
        "=40.0": f"={0.7 * table.costs(found.require_spec()).largest}",
        "Classification(...)": "evaluator",
        "(3, 224, 224)": "(3, 64, 64)",
        '"k5_e3 skip k3_e6 …"': repr(found.candidate_names),
    }
    text = block.text
    for printed, shorter in changes.items():
        text = text.replace(printed, shorter)
    before = BEFORE if "evaluator" in text else ""
    done = run_warm(["python", "-c", before + text], place.folder, place.environment, timeout=900)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_blocks_are_found() -> None:
    """All command blocks are found. A change of their format would otherwise leave them unexecuted."""
    assert {name_of(page) for page in WITH_COMMANDS} >= {
        "README.md", "docs/latency.md", "docs/nni.md", "docs/retrain.md", "docs/strategies.md",
        "experiments/budgets/README.md",
    }  # fmt: skip
    commands = [command for page in PAGES for block in blocks(page) for command in block.commands]
    printed = [
        line
        for page in PAGES
        for fenced in page.read_text().split("```")[1::2]  # not prose, whose lines may begin with these words
        for line in re.findall(r"^(?:nni-proxyless|nnictl|make) .*", fenced, re.M)
    ]
    assert sorted(commands) == sorted(printed)
