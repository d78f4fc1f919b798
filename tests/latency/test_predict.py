"""Predictions, compared with sums by hand, and valid and invalid files of architectures."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nni_proxyless.errors import InputError, LatencyTableError, ProxylessError
from nni_proxyless.latency import Choice, LatencyTable, ModuleCall, OperatorCost, SpaceCosts, random_architecture
from nni_proxyless.latency.architectures_file import ArchitectureFile, read_architectures, read_measurements
from nni_proxyless.latency.entries import entry_from_dict
from nni_proxyless.latency.predict import costs_of, predict, space_of, write_predictions
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.space_spec import SpaceSpec

ONE_FILE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=60,
    derandomize=True,
)


def test_a_table_predicts_all_networks_at_once(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    rows = list(itertools.product(*(layer.names for layer in tiny_spec.layers)))
    columns = {layer.label: [row[i] for row in rows] for i, layer in enumerate(tiny_spec.layers)}
    by_hand = [
        2.0 * sum(tiny_table.operators[op].cost for op in tiny_spec.operators(dict(zip(columns, row, strict=True))))
        + 0.5
        for row in rows
    ]
    np.testing.assert_allclose(costs.of_many(columns), by_hand)


def test_hundred_thousand_architectures_are_predicted_without_a_loop_over_them() -> None:
    names = tuple(f"k{k}_e{e}" for k in (3, 5, 7) for e in (3, 6)) + ("skip",)
    labels = [f"layer{i}" for i in range(22)]
    draw = np.random.default_rng(0)
    costs = SpaceCosts(1.0, dict.fromkeys(labels, names), {k: tuple(draw.random(7)) for k in labels})
    columns = {label: draw.choice(np.array(names), 100_000) for label in labels}
    start = time.process_time()
    predicted = costs.of_many(columns)
    print(f"100,000 architectures predicted in {time.process_time() - start:.2f} s of processor time")
    assert predicted.shape == (100_000,)
    for i in draw.integers(0, 100_000, 20):
        assert predicted[i] == pytest.approx(costs.of({label: str(columns[label][i]) for label in labels}))


def test_csv_in_and_out(tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path) -> None:
    drawn = [random_architecture(tiny_spec, random.Random(i)).choices for i in range(4)]
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", *drawn[0], "latency_ms"])
        writer.writeheader()
        writer.writerows({"name": f"n{i}", **choices, "latency_ms": 9} for i, choices in enumerate(drawn))
    costs = tiny_table.costs(tiny_spec)
    architectures = read_architectures(path)
    write_predictions(tmp_path / "p.csv", architectures, predict(costs, architectures), tiny_table)
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["n0", "n1", "n2", "n3"]
    assert [row["measured_latency_ms"] for row in rows] == ["9"] * 4
    assert [float(row["latency_ms"]) for row in rows] == pytest.approx([costs.of(choices) for choices in drawn])


def test_json_of_architectures_samples_and_distributions(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable, tmp_path: Path
) -> None:
    costs = tiny_table.costs(tiny_spec)
    architecture = random_architecture(tiny_spec, random.Random(1))
    path = architecture.save(tmp_path / "architecture.json")
    assert predict(costs, read_architectures(path)) == pytest.approx([costs.of(architecture.choices)])
    other = random_architecture(tiny_spec, random.Random(2))
    path = tmp_path / "samples.json"
    path.write_text(json.dumps([dict(architecture.choices), dict(other.choices)]))
    assert predict(costs, read_architectures(path)) == pytest.approx(
        [costs.of(a.choices) for a in (architecture, other)]
    )
    half = {
        k: ({v: 0.5, other.choices[k]: 0.5} if v != other.choices[k] else {v: 1})
        for k, v in architecture.choices.items()
    }
    path.write_text(json.dumps(half))
    mean = (costs.of(architecture.choices) + costs.of(other.choices)) / 2
    assert predict(costs, read_architectures(path)) == pytest.approx([mean])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,latency_ms\n", "has a header but no rows"),
        ("a,latency_ms\nk3,\n", "column 'latency_ms' is empty in line 2"),
        ("a,latency_ms\nk3,1\n,2\n", "column 'a' is empty in line 3"),
        ("a,latency_ms\nk3,1\nk5\n", "column 'latency_ms' is empty in line 3"),
        ("a,latency_ms\nk3,1\nk5,2,7\n", "cannot be parsed"),
        ("a,latency_ms\nk3,1\nk5,-2\n", "must be a positive number of milliseconds, got '-2' in line 3"),
        ("a,latency_ms\nk3,0\n", "got '0' in line 2"),
        ("a,latency_ms\nk3,inf\n", "got 'inf' in line 2"),
        ("a,latency_ms\nk3,nan\n", "got 'nan' in line 2"),
        ("a,latency_ms\nk3,fast\n", "got 'fast' in line 2"),
        ("a,b\nk3,1\n", "have no column 'latency_ms'; the columns are a, b"),
        ("latency_ms\n1\n", "have no column for a layer"),
        ("a,a,latency_ms\nk3,k3,1\n", "more than one column named 'a'"),
        ("a,,latency_ms\nk3,k3,1\n", "column 2 has no name"),
        ("name,a,latency_ms\nx,k3,1\ny,k3,2\nz,k5,3\n", "column 'name' has a different value in each row"),
    ],
)
def test_bad_measurements(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_measurements(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be parsed"),
        ("[]", "must hold a mapping"),
        ("[3]", "must hold a mapping"),
        ('[{"a": "k3"}, {"b": "k3"}]', "all must have the same layers"),
        ('{"a": {"k3": 0.5}}', "must be numbers from 0 that add up to 1"),
        ('{"a": {"k3": "much"}}', "must be numbers from 0"),
        ('{"a": {"k3": 1}, "b": "k3"}', "each to probabilities"),
    ],
)
def test_bad_json(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_architectures(path)


def test_what_a_space_does_not_have_is_refused(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    costs = tiny_table.costs(tiny_spec)
    good = {layer.label: np.array([layer.names[0]]) for layer in tiny_spec.layers}
    with pytest.raises(InputError, match=r"lack the layer\(s\) stage1_layer1"):
        costs.of_many({k: v for k, v in good.items() if k != "stage1_layer1"})
    with pytest.raises(InputError, match=r"layer stage1_layer1: unknown candidate 'k3_e7'; did you mean"):
        costs.of_many({**good, "stage1_layer1": np.array(["k3_e7"])})
    distribution = {layer.label: {layer.names[0]: 1.0} for layer in tiny_spec.layers}
    with pytest.raises(InputError, match="the distribution lacks layer stage2_layer1"):
        predict(costs, ArchitectureFile({}, [{k: v for k, v in distribution.items() if k != "stage2_layer1"}]))
    with pytest.raises(InputError, match="unknown candidate 'k9'"):
        predict(costs, ArchitectureFile({}, [{**distribution, "stage2_layer1": {"k9": 1.0}}]))
    assert space_of(tiny_table, None) is None
    with pytest.raises(LatencyTableError, match="give its --space"):
        costs_of(tiny_table, None)


cell = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@ONE_FILE
@given(text=st.text(max_size=300))
def test_any_text_is_measurements_or_one_clear_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_measurements(path)
    except ProxylessError:
        pass  # any other error fails the test
    else:
        assert np.all(found.latency_ms > 0)
        assert all(len(column) == len(found) for column in found.layers.values())


@ONE_FILE
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["skip", "k3_e6", "NA", "None", "1.0", "a b"]), min_size=2, max_size=2), min_size=3
    ),
    latency_ms=st.floats(min_value=1e-9, max_value=1e9),
)
@example(rows=[["skip", "skip"]] * 3, latency_ms=90071993.43359375)  # pandas 2 would miss the last digit
def test_written_measurements_are_read_as_they_were(rows: list[list[str]], latency_ms: float, tmp_path: Path) -> None:
    rows = [*rows, rows[0]]  # otherwise a column with a different value in each row would count as names
    path = tmp_path / "m.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["x", "y", "latency_ms"], *([*row, repr(latency_ms)] for row in rows)])
    found = read_measurements(path)
    assert [list(pair) for pair in zip(*(found.layers[k].tolist() for k in "xy"), strict=True)] == rows
    assert found.latency_ms.tolist() == [latency_ms] * len(rows)


shape = st.tuples(*[st.integers(1, 2048)] * 3)
entries = st.one_of(
    st.builds(Operator, st.sampled_from(["conv", "mbconv", "classifier"]), shape, shape, *[st.integers(1, 9)] * 3),
    st.builds(Choice, cell.filter(bool), cell.filter(bool)),
    st.builds(ModuleCall, cell.filter(bool), st.lists(shape, max_size=2).map(tuple)),
)
cost = st.builds(
    OperatorCost,
    st.floats(min_value=1e-9, max_value=1e9),
    st.floats(min_value=0, max_value=1e3),
    st.integers(1, 1000),
)


@example(operators={Choice("0", "\x85"): OperatorCost(1.0)})
@ONE_FILE
@given(operators=st.dictionaries(entries, cost, min_size=1, max_size=5))
def test_tables_are_read_as_they_were_written(operators: dict[Operator, OperatorCost], tmp_path: Path) -> None:
    from tests.latency.test_latency import made_up_table

    table = made_up_table(operators)
    assert LatencyTable.load(table.save(tmp_path / "t.yml")) == table
    for entry in operators:
        assert entry_from_dict(json.loads(json.dumps(entry.to_dict()))) == entry


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | cell,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(cell, inner, max_size=3),
    max_leaves=6,
)


@ONE_FILE
@given(st.data())
def test_a_damaged_table_is_refused_or_still_sound(data: st.DataObject) -> None:
    from tests.latency.test_latency import made_up_table

    operator = Operator("conv", (3, 8, 8), (8, 8, 8), 3)
    content = made_up_table({operator: OperatorCost(1.0)}).to_dict()
    key = data.draw(st.sampled_from(sorted(content)))
    content[key] = data.draw(json_values)
    try:
        table = LatencyTable.from_dict(content)
    except LatencyTableError:
        pass  # any other error fails the test
    else:
        assert math.isfinite(table.sum([operator]))
