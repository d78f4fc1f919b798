"""Packages import only lower packages, there are no import cycles, and a trial gets its parameters before torch."""

from __future__ import annotations

import ast
import graphlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nni_proxyless.lazy import OLD_MODULES
from tests.helpers import REPOSITORY
from tests.warm import run_warm

PACKAGE = REPOSITORY / "nni_proxyless"
# Packages from the lowest to the highest. Each imports only those before it. "" stands for the top-level modules.
ORDER = (
    "adapters", "", "files", "network", "data", "latency", "decoding", "supernet", "training", "nni_spaces",
    "strategies", "search", "deploy", "report", "nni_bridge", "cli",
)  # fmt: skip
PURE = [
    "supernet.binary_gates",
    "strategies.objective",
    "decoding.knapsack",
    "decoding.distribution",
    "decoding.ranking",
    "network.architecture",
    "latency",
    "latency.isolated",
    "latency.worker",
    "network.space_spec",
    "network.operators",
]


def _imports() -> dict[str, set[str]]:
    """Find the modules that each module of `nni_proxyless` imports, also in functions and for type checking."""
    names = {path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."): path for path in _files()}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        here = name.split(".")[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            base = here[: len(here) - node.level + 1] if node.level else (node.module or "").split(".")[1:]
            if not node.level and (node.module or "").split(".")[0] != "nni_proxyless":
                continue
            module = ".".join([*base, *((node.module or "").split(".") if node.level and node.module else [])])
            for alias in node.names:
                below = f"{module}.{alias.name}".lstrip(".")
                found[name].add(next(m for m in (below, module, f"{module}.__init__".lstrip(".")) if m in names))
    return found


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _package(module: str) -> str:
    return module.partition(".")[0] if "." in module else ""


def test_no_two_files_import_each_other_in_a_circle() -> None:
    # A package's lazy `__init__` imports its modules only for type checkers, so it cannot be part of a cycle.
    graph = {
        name: {other for other in used if not other.endswith("__init__")}
        for name, used in _imports().items()
        if not name.endswith("__init__")
    }
    assert len(graph) > 100
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the cycle
    assert set(order) == set(graph)


def test_packages_import_downwards_only() -> None:
    imports = _imports()
    assert {_package(module) for module in imports} == set(ORDER)
    upwards = [
        f"{name} imports {other}"
        for name, used in imports.items()
        if not name.endswith("__init__")
        for other in used
        if ORDER.index(_package(other)) > ORDER.index(_package(name)) and name != "__main__"
    ]
    assert not upwards


def test_a_circle_would_be_found() -> None:
    graph = _imports()
    graph["errors"] = {*graph["errors"], "files.writing"}
    with pytest.raises(graphlib.CycleError, match="errors"):
        list(graphlib.TopologicalSorter(graph).static_order())


def test_files_are_short_enough_to_be_read_at_once() -> None:
    long = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in _files()}
    assert {name: lines for name, lines in long.items() if lines > 350} == {}


@pytest.mark.parametrize("old", sorted(OLD_MODULES))
def test_import_paths_of_version_0_1_keep_working(old: str, tmp_path: Path) -> None:
    import importlib

    module = importlib.import_module(f"nni_proxyless.{old}")
    for home in OLD_MODULES[old]:
        today = importlib.import_module(f"nni_proxyless.{home}")
        own = [name for name, value in vars(today).items() if getattr(value, "__module__", "") == today.__name__]
        for name in own:
            assert getattr(module, name) is getattr(today, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("old", "names"),
    {
        "baselines": "Baseline LatencyDARTS LatencyENAS LatencyGumbelDARTS LatencyNniProxyless RandomSearch",
        "cli_latency": "add_commands",
        "decode": "most_likely_within front draw_within",
        "evaluator": "ImageClassification FusedSGD accuracy make_sgd",
        "gates": "path_probs sample_path sample_pair straight_through_gates gated_sum log_likelihood",
        "judge": "Judge decode_finalists",
        "latency.backends": "make_backend",
        "latency.fit": "fit_table",
        "latency.measure": "measure_table draw_architectures random_architecture",
        "latency.onnx_backend": "OnnxRuntimeBackend export_onnx quantize_static",
        "latency.sampling": "sample_interleaved Protocol NETWORK_PROTOCOL OPERATOR_PROTOCOL CALIBRATION_PROTOCOL",
        "nni_bridge.cells": "Cell Rules Trial MAX_CELLS find_cell parse_search_space",
        "ranking": "additive_fit with_opinions rank_values",
        "recorder": "Recorder Record Prepared prepare load_recipe_data",
        "reinforce": "Baseline",
        "search": "run_search prepare load_recipe_data",
        "search_checkpoint": "SearchCheckpoint",
        "strategies": "make_strategy",
        "strategy": "ProxylessNAS",
    }.items(),
)
def test_names_of_version_0_1_are_found_where_they_were(old: str, names: str) -> None:
    import importlib

    module = importlib.import_module(f"nni_proxyless.{old}")
    values = [getattr(module, name) for name in names.split()]
    assert not any(inspect.ismodule(value) for value in values)


def test_importing_a_module_of_a_package_imports_nothing_else() -> None:
    commands = [
        "from nni_proxyless.supernet import binary_gates as gates",
        "from nni_proxyless.strategies import compatibility",
        "from nni_proxyless.search import targets",
    ]
    assert loaded_after(commands, "nni") == dict.fromkeys(commands, False)
    # The doctor must run where torch and NNI are missing or do not fit.
    assert loaded_after(["nni_bridge.doctor"], "torch") == {"nni_bridge.doctor": False}
    assert loaded_after(["nni_bridge.doctor"], "nni") == {"nni_bridge.doctor": False}


def test_modules_of_version_0_1_that_are_packages_today_keep_their_names() -> None:
    from nni_proxyless.cli import main
    from nni_proxyless.data import load_splits
    from nni_proxyless.search import run_search
    from nni_proxyless.strategies import make_strategy
    from nni_proxyless.supernet import Gate
    from nni_proxyless.training import seed_epoch

    assert all(map(callable, (main, load_splits, run_search, make_strategy, Gate, seed_epoch)))


def loaded_after(modules: list[str], watched: str) -> dict[str, bool]:
    """For each module, imported one after the other in a fresh process: whether `watched` has been loaded by then."""
    code = (
        "import importlib, json, sys\n"
        "found = {}\n"
        f"for module in {modules!r}:\n"
        "    exec(module) if ' ' in module else importlib.import_module(f'nni_proxyless.{module}')\n"
        f"    found[module] = {watched!r} in sys.modules\n"
        "print(json.dumps(found))"
    )
    words = ["python", "-W", "ignore", "-c", code]
    if watched == "torch":
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=True)
    else:
        done = run_warm(words, Path.cwd())  # it has imported torch, but not NNI
        assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_the_mathematics_never_imports_nni() -> None:
    found = loaded_after(PURE, "nni")
    assert found == dict.fromkeys(PURE, False)


def test_what_a_trial_needs_first_does_not_import_torch() -> None:
    first = ["cli.entry", "search.recipe", "deploy.retrain_recipe", "nni_bridge.trial", "files.results_folder"]
    found = loaded_after([*first, "supernet.binary_gates"], "torch")
    assert [found.pop(module) for module in first] == [False] * len(first)
    assert list(found.values()) == [True]  # the check can fail


@pytest.mark.parametrize(
    "first",
    [
        "nni_proxyless.supernet.gated",
        "nni_proxyless.strategies.penalty",
        "nni.nas.strategy",
    ],
)
def test_nnis_own_strategies_survive_our_import_in_any_order(first: str, tmp_path: Path) -> None:
    """NNI replaces DARTS by a stub if nni.nas.oneshot is imported before nni.nas.strategy."""
    code = (
        f"import warnings; warnings.simplefilter('ignore'); import {first}; import nni_proxyless.strategies.proxyless;"
        "import nni.nas.strategy as s; print(s.DARTS.__module__)"
    )
    done = run_warm(["python", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "nni.nas.oneshot.pytorch.strategy"
