from __future__ import annotations

import random
from pathlib import Path

import pytest

from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import Backend, LatencyTable, random_architecture
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search import targets
from nni_proxyless.search.targets import Target


def test_a_measured_table_is_kept_for_the_next_trial(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def measure(spec: SpaceSpec, *_args: object, **_kwargs: object) -> LatencyTable:
        measured.append(spec)
        return tiny_table

    monkeypatch.setattr(targets, "measure_table_isolated", measure)
    target = Target("laptop", backend="torch")
    assert target.latency_table(tiny_spec) == tiny_table
    assert target.latency_table(tiny_spec) == tiny_table
    assert len(measured) == 1
    target.latency_table(tiny_spec, remeasure=True)
    assert len(measured) == 2
    target.latency_table(tiny_spec.with_changes(classes=5))  # another space needs another table
    Target("laptop", backend="torch", settings={"threads": 2}).latency_table(tiny_spec)  # so do other settings
    assert len(measured) == 4


def test_a_target_with_a_table_is_read_and_never_measured(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path
) -> None:
    path = tiny_table.save(tmp_path / "phone.yml")
    target = Target.parse("phone", {"table": "phone.yml"}, tmp_path)
    assert target.latency_table(tiny_spec) == tiny_table
    assert target.make_backend() is None
    path.write_text("schema: something else")
    with pytest.raises(LatencyTableError, match="schema must be"):
        target.latency_table(tiny_spec)


def test_a_target_may_be_predicted_by_a_table_and_measured_by_a_backend(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_table.save(tmp_path / "phone.yml")
    target = Target.parse("phone", {"table": "phone.yml", "backend": "onnxruntime", "threads": 2}, tmp_path)
    monkeypatch.setattr(targets, "measure_table_isolated", lambda *_, **__: pytest.fail("measured a table"))
    assert target.latency_table(tiny_spec) == tiny_table
    measured = []

    def measure(architecture: Architecture, backend: Backend, **settings: object) -> float:
        measured.append((backend.name, backend.threads, settings))
        return 1.5

    monkeypatch.setattr(targets, "measure_isolated", measure)
    architecture = random_architecture(tiny_spec, random.Random(0))
    assert target.measure(architecture, tiny_table) == 1.5
    assert measured == [("onnxruntime", 2, {"reference_ms": None})]  # the table is of another device


@pytest.mark.parametrize(
    ("backend", "message"),
    [("onnxruntme", "did you mean 'onnxruntime'"), ("flops", "backend flops counts flops, and a target needs ms")],
)
def test_a_backend_beside_a_table_is_checked_before_the_search(
    backend: str, message: str, tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path
) -> None:
    tiny_table.save(tmp_path / "phone.yml")
    target = Target.parse("phone", {"table": "phone.yml", "backend": backend}, tmp_path)
    with pytest.raises(InputError, match=message):
        target.latency_table(tiny_spec)


def test_a_damaged_kept_table_is_measured_anew(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "measure_table_isolated", lambda *_, **__: tiny_table)
    target = Target("laptop", backend="torch")
    backend = target.make_backend()
    assert backend is not None
    path = target.kept_table(tiny_spec, backend)
    path.parent.mkdir(parents=True)
    path.write_text("schema: nni-proxy")
    assert target.latency_table(tiny_spec) == tiny_table
    assert LatencyTable.load(path) == tiny_table


def test_targets_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    one, four, again = (
        Target.parse("laptop", {"backend": "torch", "threads": threads}, tmp_path) for threads in (1, 4, 1)
    )
    assert len({one, four, again}) == 2
