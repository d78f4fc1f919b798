from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from nni_proxyless.latency import LatencyTable, fresh_process, measure_table_isolated
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY, TINY_SPACE, Workplace, table_of
from tests.quick_steps import make_steps_quick
from tests.warm_changes import PROGRAM

# The modules and tests that a worker loads are about a million objects, which stay. The collector need not visit them.
gc.disable()
make_steps_quick()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in the background ignores Ctrl-C, and so would all processes that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the slowest tests first if there are several workers, so that all workers finish at about the same time.

    Tests that share an experiment run one after the other in one worker, so they come before all others.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: ("slow" not in item.keywords, "xdist_group" not in item.keywords, -_seconds(item)))


def _seconds(item: pytest.Item) -> float:
    """About how long a test takes that is marked as slow, in seconds."""
    return max((mark.args[0] for mark in item.iter_markers("slow") if mark.args), default=20.0)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's cache, NNI's registry and NNI's list of experiments."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(home / "cache"))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(home / "nni"))
    # NNI reads its list of experiments several times in each one, which takes long if there have been many.
    list_of = "nni.tools.nnictl.config_utils.Experiments.__init__.__defaults__"
    monkeypatch.setattr(list_of, (str(home / "nni-experiments"),))


@pytest.fixture(autouse=True)
def _tables_are_not_measured_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """While other tests keep the machine busy, tables would otherwise be measured up to three times as long."""
    defaults = measure_table_isolated.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "most_processes", 1)


@pytest.fixture(autouse=True)
def _measuring_processes_start_warm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the processes that measure warm (tests/warm.py), except in the tests of these processes themselves."""
    if request.path.parent.name != "latency" and request.path.name != "test_killed.py":
        monkeypatch.setattr(fresh_process, "PYTHON", (*PROGRAM, "python"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_spec() -> SpaceSpec:
    """Space of 80 networks for images of 8 x 8 pixels: three searched layers with 4, 5 and 4 candidates."""
    return SpaceSpec.from_dict(TINY_SPACE)


@pytest.fixture
def tiny_table(tiny_spec: SpaceSpec) -> LatencyTable:
    """Table of made-up latencies, all different: the n-th operator takes n hundredths of a millisecond."""
    return table_of(tiny_spec)


@pytest.fixture
def recipe_file(tmp_path: Path, tiny_spec: SpaceSpec) -> Path:
    """Recipe of a search on the digits in the tiny space, for a made-up device; two of its six epochs are warm-up."""
    spec = replace(tiny_spec, classes=10)
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(spec.to_dict()))
    table_of(spec).save(tmp_path / "table.yml")
    content = {
        "space": "tiny.yml", "data": "digits", "batch_size": 128, "epochs": 6, "warmup_epochs": 2, "learning_rate": 0.1,
        "budget_fraction": 0.87, "arch_learning_rate": 0.6, "bn_batches": 2, "threads": 1, "finalists": 1,
        "target": "device", "targets": {"device": {"table": "table.yml"}},
    }  # fmt: skip
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def shared_data() -> Path:
    """Folder of public data outside the repository: `$NNI_PROXYLESS_DATA`, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("NNI_PROXYLESS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data; there is none in {folder} (set NNI_PROXYLESS_DATA)")
    return folder


@pytest.fixture
def workplace(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """Workplace that shares its measured latency tables with the others of the same test run."""
    place = Workplace(tmp_path)
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "tables"
    shared.mkdir(exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "tables").symlink_to(shared, target_is_directory=True)
    yield place
    for process in place.processes():
        process.kill()
