"""Mutated files of every kind: whatever is read, no exception leaves the package but its own.

The default is a short form. All 20,000 mutations are tried by

    NNI_PROXYLESS_MUTATIONS=20000 pytest tests/system/test_mutated_files.py

Each mutation is drawn from the name of its kind and its number, so a failure is found again under the same number.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from nni_proxyless.cli.settings import parse_settings
from nni_proxyless.data.image_arrays import load_arrays
from nni_proxyless.decoding.checkpoint import CHECKPOINT_KEY, CHECKPOINT_SCHEMA, SearchCheckpoint
from nni_proxyless.deploy.describe import describe
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe, of_search
from nni_proxyless.errors import LatencyTableError, ProxylessError
from nni_proxyless.latency import Choice, LatencyTable, ModuleCall
from nni_proxyless.latency import show as table_shown
from nni_proxyless.latency.architectures_file import check_layers, read_architectures, read_measurements
from nni_proxyless.latency.compare import compare
from nni_proxyless.latency.counts import counts_of_space, read_counts
from nni_proxyless.latency.journal import Journal, export_samples
from nni_proxyless.latency.judgement import load_judged
from nni_proxyless.latency.predict import predict, predict_std
from nni_proxyless.latency.published import import_table
from nni_proxyless.latency.quality import Quality
from nni_proxyless.latency.table_parts import Calibration, OperatorCost
from nni_proxyless.latency.uncertainty import Uncertainty
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import load_into, save_weights
from nni_proxyless.nni_bridge.plan import check_config
from nni_proxyless.nni_bridge.trial import _same
from nni_proxyless.nni_bridge.tuner import LatencyBudget
from nni_proxyless.report import tables as report_tables
from nni_proxyless.report.gather import _experiments, gather
from nni_proxyless.report.verdict import verdict
from nni_proxyless.report.warnings import warnings_to_show
from nni_proxyless.search.kept_tables import kept_tables, listing
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY, table_of
from tests.system.mutations import (
    mutated_arrays,
    mutated_document,
    mutated_table,
    mutated_tensors,
    mutated_text,
)

RECORDED = REPOSITORY / "tests" / "recorded"
CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
_SHORT = 60  # mutations of each kind
_LONGEST_S = 60  # of one mutation, which takes milliseconds; a reader that hangs would otherwise hang the test


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: Name of the file in the folder of the test.
        content: Content of a good file.
        read: What the package does with the file at this path.
    """

    name: str
    content: bytes
    read: Callable[[Path], object]

    def mutated(self, draw: random.Random) -> bytes:
        suffix = Path(self.name).suffix
        if suffix == ".csv":
            return mutated_table(self.content, draw)
        if suffix == ".npz":
            return mutated_arrays(self.content, draw)
        if suffix in (".pt", ".ckpt"):
            return mutated_tensors(self.content, draw)
        if suffix in (".samples", ".txt"):
            return mutated_text(self.content.decode(), draw).encode("utf-8", "surrogatepass")
        return mutated_document(self.content, draw, as_json=self.name.endswith((".json", ".experiment")))


class Place:
    """A folder with good files, of which each kind mutates one."""

    def __init__(self, folder: Path, spec: SpaceSpec) -> None:
        self.folder, self.spec = folder, spec
        self.table = table_of(spec)
        self.table.save(folder / "table.yml")
        self.architecture = Architecture.of_space(
            spec, CHOICES, target="device", strategy="proxyless", budget_ms=3.0, predicted_latency_ms=2.5,
            measured_latency_ms=2.6, metrics={"default": 0.9}, seed=7, warnings=("a warning",),
        )  # fmt: skip
        (folder / "tiny.yml").write_text(yaml.safe_dump(spec.to_dict()))
        self.recipe = {
            "space": "tiny.yml", "data": "digits", "epochs": 6, "warmup_epochs": 2, "budget_fraction": 0.87,
            "arch_learning_rate": 0.3, "threads": 1, "target": "device", "seed": 3, "strategy_args": {},
            "targets": {"device": {"table": "table.yml"}, "cpu": {"backend": "torch", "threads": 1}},
        }  # fmt: skip
        self.layers = {layer.label: layer.names for layer in spec.layers}

    # What the package does with each kind of file.

    def read_recipe(self, path: Path) -> None:
        recipe = Recipe.load(path)
        recipe.to_dict(absolute=True)
        recipe.chosen_target().make_backend()
        changed = SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
        changed.with_changes(width_mult=recipe.width_mult, input_size=recipe.input_size)
        of_search(path)

    def read_settings(self, path: Path) -> None:
        """Take the lines of a recipe as words of the command line."""
        words = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
        Recipe.from_dict({**self.recipe, **parse_settings(words)})

    def read_space(self, path: Path) -> None:
        spec = SpaceSpec.from_yaml(path)
        assert spec.num_networks > 0
        counts_of_space(spec)

    def read_table(self, path: Path) -> None:
        table = load_judged(path)
        table_shown.describe(table)
        table_shown.most_expensive(table)
        compare(table, table)
        assert LatencyTable.from_dict(table.to_dict()) == table
        costs = table.own_costs() if table.fitted_to_layers else table.costs(self.spec)
        assert costs.largest > 0
        table_shown.layer_bars(costs)
        (path.parent / "chosen.json").write_text(json.dumps(CHOICES))
        architectures = read_architectures(path.parent / "chosen.json")
        predicted = predict(costs, architectures)
        if table.uncertainty is not None:
            predict_std(table, architectures, predicted)

    def read_architecture(self, path: Path) -> None:
        architecture = Architecture.load(path)
        assert Architecture.from_dict(architecture.to_dict()) == architecture
        describe(architecture, self.table)

    def read_architectures(self, path: Path) -> None:
        predict(self.table.costs(self.spec), read_architectures(path))

    def read_measurements(self, path: Path) -> None:
        check_layers(read_measurements(path).layers, self.layers, "space 'tiny'")

    def read_counts(self, path: Path) -> None:
        read_counts(path).of_choices([Choice(label, name) for label, names in self.layers.items() for name in names])

    def read_published(self, path: Path) -> None:
        LatencyTable.load(import_table(path, "once-for-all").table.save(path.parent / "imported.yml"))

    def read_images(self, path: Path) -> None:
        train, plain, test = load_arrays(path)
        for part in (train, plain, test):
            if part is not None:
                part.batch([0, len(part) - 1])

    def read_checkpoint(self, path: Path) -> None:
        found = SearchCheckpoint.load(path)
        architecture = found.decode(self.table, 2.5)
        assert architecture.predicted_latency_ms is not None
        found.for_table(self.table).front()

    def read_weights(self, path: Path) -> None:
        network = self.architecture.build()
        load_into(network, path)
        assert bool(network.eval()(torch.zeros(1, *self.spec.input_shape)).isfinite().all())

    def read_journal(self, path: Path) -> None:
        journal = Journal(path, {"space": "tiny"})
        journal.close()
        for name, moment, value in journal.samples():
            assert isinstance(name, str)
            assert abs(moment) + abs(value) < float("inf")
        export_samples([path], path.parent / "samples.csv")

    def read_tuner(self, path: Path) -> None:
        tuner = LatencyBudget()
        tuner.load_checkpoint()

    def read_config(self, path: Path) -> None:
        check_config(path)

    def read_results(self, path: Path) -> None:
        results = gather(self.folder / "results", "title")
        for search in results.searches:
            assert search.accuracy >= 0 or search.latency_ms >= 0
            report_tables.drawn_blocks(search)
            search.warnings  # noqa: B018
        report_tables.cross_table(results)
        report_tables.points(results, {})
        report_tables.predicted_and_measured(results)
        report_tables.differing_exports(results)
        report_tables.costs(results)
        lines = verdict(results, {})
        warnings_to_show(results, lines)
        assert all(isinstance(value, (str, int, float)) for line in lines for value in line.row().values())

    def read_retraining(self, path: Path) -> None:
        RetrainRecipe.load(path).to_dict(absolute=True)

    def read_kept(self, path: Path) -> None:
        listing(kept_tables())

    def read_parameters(self, path: Path) -> None:
        _same(path, {"target": "device"})

    def read_experiments(self, path: Path) -> None:
        _experiments()


def kinds(place: Place) -> dict[str, Kind]:
    """Return all kinds of files that the package reads."""
    spec, table = place.spec, place.table
    fitted = replace(
        table,
        backend="fit",
        operators={
            Choice(label, name): OperatorCost(0.1 * i)
            for label, names in place.layers.items()
            for i, name in enumerate(names)
        },
        calibration=Calibration(offset_ms=1.0, networks=20, mean_relative_error=0.02),
        quality=Quality(rank_correlation=0.9, smallest_ms=1.0, verdict="good"),
    )
    fitted = replace(fitted, uncertainty=Uncertainty(0.01, (0.1, 0.2), dict.fromkeys(fitted.operators, (0.1, 0.0))))
    modules = replace(
        table,
        operators={ModuleCall("Conv2d(3, 8)", ((3, 8, 8),)): OperatorCost(1.0)},
        space="mine",
        input_shape=(3, 8, 8),
    )
    rows = [{label: names[0] for label, names in place.layers.items()}, CHOICES, CHOICES]
    labels = list(place.layers)
    chosen = _csv(labels, [list(row.values()) for row in rows])
    measured = _csv([*labels, "latency_ms"], [[*row.values(), 1.5 + i] for i, row in enumerate(rows)])
    counted = [[label, name, i, 2 * i] for label, names in place.layers.items() for i, name in enumerate(names)]
    timed = {"mean": 1.5, "count": 10, "std": 0.1}
    published = {
        "Conv-input:8x8x3-output:4x4x8": timed,
        "Logits-input:4x4x8-output:3": {"mean": 0.5, "count": 10, "var": 0.01},
        "expanded_conv-input:4x4x8-output:4x4x8-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0": {
            "mean": 1,
            "count": 5,
        },
    }
    images = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    np.savez(images, images=pixels, labels=np.arange(12) % 3, test_images=pixels[:6], test_labels=np.arange(6) % 3)
    state = {
        "state_dict": {},
        CHECKPOINT_KEY: {
            "schema": CHECKPOINT_SCHEMA,
            "space": spec.to_dict(),
            "alpha": {label: torch.arange(len(names)) / 10 for label, names in place.layers.items()},
            "candidates": {label: list(names) for label, names in place.layers.items()},
            "strategy": {"temperature": 1.0},
        },
    }
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)
    weights = save_weights(place.architecture.build(), place.folder / "good.pt").read_bytes()
    samples = [json.dumps({"space": "tiny"}), *(json.dumps(["0", 1.0 * i, 0.5]) for i in range(5)), ""]
    tuner = [
        {
            "values": {"target": "device", "seed": 1},
            "tuned": True,
            "trials": [{"parameters": {"target": "device", "latency_weight": 0.1}, "state": "running"}],
        }
    ]
    config = {
        "experimentName": "x", "searchSpace": {"target": {"_type": "choice", "_value": ["device", "cpu"]}},
        "trialCommand": "nni-proxyless trial --recipe recipe.yml", "trialCodeDirectory": ".", "trialConcurrency": 1,
        "maxTrialNumber": 4, "maxExperimentDuration": "1h", "tuner": {"name": "LatencyBudget", "classArgs": {}},
        "trainingService": {"platform": "local"},
    }  # fmt: skip
    distribution = [{label: {name: 1 / len(names) for name in names} for label, names in place.layers.items()}]
    retraining = {"architecture": "architecture.json", "data": "digits", "epochs": 20, "seed": 1, "split_seed": 2}
    architecture = json.dumps(place.architecture.to_dict()).encode()
    words = [f"{key}={json.dumps(value)}" for key, value in place.recipe.items()]
    found = {
        "recipe": Kind("recipe.yml", _yaml(place.recipe), place.read_recipe),
        "settings": Kind("settings.txt", "\n".join(words).encode(), place.read_settings),
        "recipe of a retraining": Kind("retrain.yml", _yaml(retraining), place.read_retraining),
        "config": Kind("config.yml", _yaml(config), place.read_config),
        "space": Kind("space.yml", _yaml(spec.to_dict()), place.read_space),
        "table": Kind("t.yml", _yaml(table.to_dict()), place.read_table),
        "fitted table": Kind("t.yml", _yaml(fitted.to_dict()), place.read_table),
        "table of modules": Kind("t.yml", _yaml(modules.to_dict()), place.read_table),
        "kept table": Kind("cache/tables/t.yml", _yaml(table.to_dict()), place.read_kept),
        "architecture": Kind("architecture.json", architecture, place.read_architecture),
        "architectures as CSV": Kind("a.csv", chosen, place.read_architectures),
        "architectures as JSON": Kind("a.json", json.dumps(rows).encode(), place.read_architectures),
        "distributions": Kind("a.json", json.dumps(distribution).encode(), place.read_architectures),
        "measurements": Kind("m.csv", measured, place.read_measurements),
        "counts": Kind("c.csv", _csv(["layer", "candidate", "macs", "parameters"], counted), place.read_counts),
        "published table": Kind("p.yml", _yaml(published), place.read_published),
        "images": Kind("images.npz", images.getvalue(), place.read_images),
        "checkpoint": Kind("checkpoint.ckpt", checkpoint.getvalue(), place.read_checkpoint),
        "weights": Kind("weights.pt", weights, place.read_weights),
        "journal": Kind(".t.samples", "\n".join(samples).encode(), place.read_journal),
        "journal of the tuner": Kind("latency_budget.json", json.dumps(tuner).encode(), place.read_tuner),
        "parameters of a trial": Kind("parameters.json", b'{"target": "device"}', place.read_parameters),
        "NNI's experiments": Kind(
            "nni-experiments/.experiment", b'{"abc": {"logDir": "/tmp", "status": "DONE"}}', place.read_experiments
        ),
    }
    results = _results(place)
    found |= {
        f"results: {name}": Kind(f"results/{name}", content, place.read_results) for name, content in results.items()
    }
    for name, content in results.items():
        path = place.folder / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (place.folder / "recipe.yml").write_bytes(found["recipe"].content)
    return found


def _results(place: Place) -> dict[str, bytes]:
    """Files of a search and a retraining: those of a recorded quickstart, but of the small space."""
    recorded = RECORDED / "quickstart" / "cpu_torch"
    architecture = json.dumps(place.architecture.to_dict()).encode()
    card = json.loads((recorded / "retrained" / "model_card.json").read_text())
    history = (recorded / "history.csv").read_text().splitlines()[:4]
    probabilities = ["epoch,label,candidate,probability"]
    header, *rows = (recorded / "probabilities.csv").read_text().splitlines()
    probabilities = [header, *rows[:20]]
    export = next((recorded / "retrained" / "exported").glob("*.json"))
    return {
        "device/recipe.yml": _yaml(place.recipe | {"strategy": "proxyless"}),
        "device/history.csv": "\n".join([*history, ""]).encode(),
        "device/probabilities.csv": "\n".join([*probabilities, ""]).encode(),
        "device/cost.json": (recorded / "cost.json").read_bytes(),
        "device/architecture.json": architecture,
        "device/latency_table.yml": _yaml(place.table.to_dict()),
        "device/retrained/architecture.json": architecture,
        "device/retrained/model_card.json": json.dumps(card).encode(),
        "device/retrained/exported/export.json": export.read_bytes(),
    }


def _yaml(content: Any) -> bytes:
    return yaml.safe_dump(content, sort_keys=False).encode()


def _csv(columns: list[str], rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return text.getvalue().encode()


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"it took longer than {_LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_LONGEST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def place(tmp_path: Path, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NNI_CHECKPOINT_DIRECTORY", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, tiny_spec)


NAMES = (
    "recipe", "settings", "recipe of a retraining", "config", "space", "table", "fitted table", "table of modules",
    "kept table", "architecture", "architectures as CSV", "architectures as JSON", "distributions", "measurements",
    "counts", "published table", "images", "checkpoint", "weights", "journal", "journal of the tuner",
    "parameters of a trial", "NNI's experiments", "results: device/recipe.yml", "results: device/history.csv",
    "results: device/probabilities.csv", "results: device/cost.json", "results: device/architecture.json",
    "results: device/latency_table.yml", "results: device/retrained/architecture.json",
    "results: device/retrained/model_card.json", "results: device/retrained/exported/export.json",
)  # fmt: skip


def test_all_kinds_are_named_and_read_as_they_are(place: Place) -> None:
    found = kinds(place)
    assert tuple(found) == NAMES
    for name, kind in found.items():
        path = place.folder / kind.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kind.content)
        if name == "table of modules":  # of no space that the package describes
            with pytest.raises(LatencyTableError):
                kind.read(path)
        else:
            kind.read(path)


@pytest.mark.parametrize("name", NAMES)
def test_no_mutation_raises_anything_but_errors_of_the_package(name: str, place: Place) -> None:
    kind = kinds(place)[name]
    path = place.folder / kind.name
    path.parent.mkdir(parents=True, exist_ok=True)
    total = int(os.environ.get("NNI_PROXYLESS_MUTATIONS", "0"))
    count = -(-total // len(NAMES)) if total else _SHORT
    failed, refused = [], 0
    for number in range(count):
        content = kind.mutated(random.Random(f"{name} {number}"))
        path.write_bytes(content)
        try:
            with _limited():
                kind.read(path)
        except ProxylessError as reason:
            refused += 1
            if len(str(reason)) > 2000 and "lacks" not in str(reason):
                failed.append(f"{number}: a message of {len(str(reason))} characters")
        except Exception as reason:
            failed.append(f"{number}: {type(reason).__name__}: {str(reason)[:200]}, for {content[-300:]!r}")
    assert not failed, f"{len(failed)} of {count}:\n" + "\n".join(failed[:20])
    ignoring = ("journal", "kept table", "parameters of a trial", "NNI's experiments")
    assert refused or name in ignoring or name.startswith("results: "), "no mutation was refused, so none was read"
