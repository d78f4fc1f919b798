"""Values in tables, published tables, measurements and counts that were once accepted although they are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import Calibration, Choice, LatencyTable, OperatorCost, make_backend
from nni_proxyless.latency.architectures_file import read_architectures, read_measurements
from nni_proxyless.latency.counts import read_counts
from nni_proxyless.latency.fitting.suggest import suggest
from nni_proxyless.latency.journal import Journal
from nni_proxyless.latency.judgement import Verdict, findings, verdict
from nni_proxyless.latency.predict import predict
from nni_proxyless.latency.published import import_table
from nni_proxyless.latency.show import most_expensive
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY
from tests.network.test_file_values import HUGE, put


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("calibration.offset_ms", -1000, "offset_ms -1000 leaves no network a latency above 0"),
        ("calibration.offset_ms", HUGE, "offset_ms must be a finite number, got 1000"),
        ("calibration.scale", 1e300, "scale must be a number up to 1,000,000, got 1e"),
        ("calibration.scale", 0, "scale must be greater than 0, got 0"),
        ("calibration.mean_relative_error", -0.1, "mean_relative_error must be a number from 0, got"),
        ("calibration.architectures", "x" * 10**6, "architectures must be a list of strings, got 'xxx"),
        ("calibration.offest_ms", 1, r"calibration: unknown key 'offest_ms'; did you mean 'offset_ms'\?"),
        ("operators.0.latency_ms", 1e308, r"operator 1 \(conv .*\): latency_ms must be a number up to 1,000,000,000"),
        ("operators.0.latency_ms", HUGE, "latency_ms must be a finite number, got 1000"),
        ("operators.0.spread_ms", -1, "operator 1: spread_ms must be a number from 0, got"),
        ("operators.0.runs", HUGE, "operator 1: runs must be a whole number from 1"),
        ("operators.0.input", [0, 8, 8], "operator field 'input' must be three whole numbers from 1"),
        ("operators.0.kernal", 3, r"operator 1: unknown key 'kernal'; did you mean 'kernel'\?"),
        ("operators.0.kind", ["conv"], r"operator kind \['conv'\] is not one of"),
        ("operators", {}, "'operators' must be a non-empty list, got {}"),
        ("reference_ms", 0, "reference_ms must be greater than 0, got 0"),
        ("reference_ms", -1, "reference_ms must be a number from 0, got"),
        ("call_overhead_ms", -1, "call_overhead_ms must be a number from 0, got"),
        ("quality", {"stolen": 2}, "quality.stolen must be a number from 0 to 1, got 2"),
        ("quality", {"rank_correlation": -3}, "quality.rank_correlation must be a number from -1 to 1"),
        ("quality", {"verdct": "good"}, r"quality: unknown key 'verdct'; did you mean 'verdict'\?"),
        ("quality", {"warnings": [1]}, "quality.warnings must be a list of strings"),
        ("device.name", ["x"], r"device.name must be a string, got \['x'\]"),
        ("device.core", 1, r"device: unknown key 'core'; did you mean 'cores'\?"),
        ("backend", {"name": "torch", "verison": 1}, r"backend: unknown key 'verison'; did you mean 'version'\?"),
        ("uncertainty", {"noise": 0.1, "x": 1}, "uncertainty: unknown key 'x'"),
        ("operatros", [], r"unknown key 'operatros'; did you mean 'operators'\?"),
        ("unit", {}, "unit must be 'ms', 'flops' or 'params', got {}"),
    ],
)
def test_tables_with_wrong_values(path: str, value: Any, message: str, tiny_table: LatencyTable) -> None:
    with pytest.raises(LatencyTableError, match=message) as caught:
        LatencyTable.from_dict(put(tiny_table.to_dict(), path, value))
    assert len(str(caught.value)) < 500


def test_a_table_predicts_more_than_0_for_every_network(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    smallest = tiny_table.costs(tiny_spec).smallest
    scale = tiny_table.calibration.scale
    assert smallest < scale * sum(cost.cost for cost in tiny_table.operators.values())
    just = replace(tiny_table, calibration=Calibration(scale, 0.5 - smallest + 1e-6, 8, 0.01))
    assert LatencyTable.from_dict(just.to_dict()).costs(tiny_spec).smallest == pytest.approx(1e-6)
    below = replace(tiny_table, calibration=Calibration(scale, 0.5 - smallest - 1e-6, 8, 0.01))
    with pytest.raises(
        LatencyTableError, match="predicts -1e-06 ms for the fastest network, and a latency must be above"
    ):
        LatencyTable.from_dict(below.to_dict()).costs(tiny_spec)


def fitted(offset_ms: float, tiny_table: LatencyTable) -> LatencyTable:
    """Table of one layer, whose candidates a and b take 0 and 4 ms more than the offset."""
    operators = {Choice("layer", "a"): OperatorCost(0.0), Choice("layer", "b"): OperatorCost(4.0)}
    return replace(tiny_table, backend="fit", operators=operators, calibration=Calibration(1.0, offset_ms, 20, 0.01))


def test_a_fitted_table_that_extrapolates_below_0_is_doubtful_and_predicts_no_such_network(
    tiny_table: LatencyTable, tmp_path: Path
) -> None:
    assert findings(fitted(1.0, tiny_table)) == []
    table = LatencyTable.from_dict(fitted(-1.0, tiny_table).to_dict())
    assert verdict(table) is Verdict.DOUBTFUL
    assert "it predicts -1 ms for the fastest network" in findings(table)[0].text
    path = tmp_path / "networks.csv"
    path.write_text("layer\nb\n")
    assert predict(table.own_costs(), read_architectures(path)) == pytest.approx([3.0])
    path.write_text("layer\nb\na\n")
    with pytest.raises(InputError, match="the table predicts -1 ms for network 2, which is impossible"):
        predict(table.own_costs(), read_architectures(path))
    with pytest.raises(LatencyTableError, match="predicts -1 ms for the mean network"):
        LatencyTable.from_dict(fitted(-3.0, tiny_table).to_dict())


def test_a_fit_to_equal_latencies_can_be_shown(tiny_table: LatencyTable) -> None:
    table = replace(fitted(1.0, tiny_table), operators={Choice("layer", "a"): OperatorCost(0.0)})
    assert most_expensive(table) == ["         0 ms   0.0 %  a in layer"]


def test_tables_of_version_0_1_and_of_the_benchmarks_are_read() -> None:
    paths = [
        *REPOSITORY.glob("tests/recorded/**/latency_table.yml"),
        *REPOSITORY.glob("benchmarks/**/cpu_*.yml"),
    ]
    assert len(paths) >= 7
    for path in paths:
        table = LatencyTable.load(path)
        assert LatencyTable.from_dict(table.to_dict()) == table


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("Conv-input:0x8x3-output:4x4x8", {"mean": 1, "count": 1}, "input must be from 1 to 10000000, got 0x8x3"),
        ("Conv-input:8x8x3-output:4x4x0", {"mean": 1, "count": 1}, "output must be from 1 to"),
        ("Conv-input:8x8x" + "9" * 50 + "-output:4x4x8", {"mean": 1, "count": 1}, "input must be from 1 to"),
        ("Other-input:0x8x3-output:4x4x8", {"mean": 1, "count": 1}, "input must be from 1 to"),
        ("Conv-input:8x8x3-output:4x4x8", {"mean": 1e308, "count": 1}, r"mean must be a positive number, got 1e\+308"),
        ("Conv-input:8x8x3-output:4x4x8", {"mean": 1, "count": 0.5}, "count must be a positive number, got 0.5"),
        ("Conv-input:8x8x3-output:4x4x8", {"mean": 1, "count": 1, "var": -1}, "var must be a positive number"),
    ],
)
def test_published_tables_with_wrong_values(name: str, entry: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yml"
    path.write_text(yaml.safe_dump({name: entry}))
    with pytest.raises(LatencyTableError, match=message) as caught:
        import_table(path, "proxylessnas")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"schema": "x"}], "all must have the same layers"),
        ([{"a": None}], "must map each label to a candidate, or each to probabilities, got None for layer 'a'"),
        ([{"a": [1]}], r"got \[1\] for layer 'a'"),
        ([{"a": "x" * 2000}], "layer 'a': a name must have at most 1000 characters"),
        ([{"a": {"x": 10**18, "y": 0}}], "must be numbers from 0 that add up to 1"),
        ([{"a": {"x": {}}}], "must be numbers from 0 that add up to 1"),
        ([{"a": {}}], "must be numbers from 0 that add up to 1"),
    ],
)
def test_architectures_with_wrong_values(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_architectures(path)


def test_csv_files_with_wrong_values(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("a,latency_ms\nk3,1e308\n")
    with pytest.raises(InputError, match="latency_ms must be a positive number of milliseconds, got '1e308' in line 2"):
        read_measurements(path)
    path.write_text("a,latency_ms\nk3,1e-300\n")
    with pytest.raises(InputError, match="latency_ms must be a positive number of milliseconds, got '1e-300'"):
        read_measurements(path)
    path.write_text("a,latency_ms\nk3,2\nk5,0.003\nk5,400000\n")
    with pytest.raises(InputError, match=r"latency_ms goes from 0\.003 to 400000, .*; are all in milliseconds"):
        read_measurements(path)
    path.write_text("a,latency_ms\n" + "x" * 2000 + ",1\n")
    with pytest.raises(InputError, match="column 'a': a name must have at most 1000 characters, got 'xxx"):
        read_measurements(path)
    path.write_text("layer,candidate,macs\na,k3,1e300\n")
    with pytest.raises(InputError, match="macs must be a number from 0, got '1e300' in line 2"):
        read_counts(path)


def test_threads_that_would_abort_the_process_are_refused() -> None:
    for name in ("torch", "onnxruntime"):
        with pytest.raises(InputError, match=f"backend {name}: threads must be at most 1024, got 1000000000"):
            make_backend(name, threads=10**9)
        with pytest.raises(InputError, match=f"backend {name}: batch must be at most 100000, got 1000"):
            make_backend(name, batch=HUGE // 10**390)
        with pytest.raises(InputError, match=f"backend {name}: batch must be a whole number from 1, got 1000"):
            make_backend(name, batch=HUGE)


def test_suggestions_that_would_exhaust_the_memory_are_refused() -> None:
    with pytest.raises(InputError, match="at most 1000 networks can be suggested at once, got 100000000"):
        suggest({"layer": ("a", "b")}, 10**8)


@pytest.mark.parametrize("content", [b"\x80\x81\x82", b"\0" * 100, b'{"a": 1}\x07\n', "é\ufffd\n".encode()])
def test_a_journal_that_is_no_text_is_refused_and_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / ".t.yml.samples"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a journal of a measurement; delete it, or choose another --out"):
        Journal(path, {"space": "tiny"})
    assert path.read_bytes() == content


def test_a_journal_that_a_crash_of_the_machine_has_damaged_goes_on(tmp_path: Path) -> None:
    path = tmp_path / ".t.yml.samples"
    journal = Journal(path, {"space": "tiny"})
    journal.write("0", 1.0, 0.5)
    journal.close()
    with path.open("ab") as file:
        file.write(
            b'["1", 2.0, NaN]\n["1", 2.0]\n["1", 2.0, "x"]\n["1", 2.0, 1e999]\n[1, 2.0, 3.0]\n\0\0\0\0\xff\n["2", 3'
        )
    again = Journal(path, {"space": "tiny"})
    assert list(again.samples()) == [("0", 1.0, 0.5)]
    again.close()
