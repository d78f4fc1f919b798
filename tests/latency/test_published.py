"""Imported published tables: predictions equal sums by hand, and missing entries are reported."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import Calibration, LatencyTable, OperatorCost, random_architecture
from nni_proxyless.latency.compare import compare
from nni_proxyless.latency.published import import_table
from nni_proxyless.latency.show import describe, layer_bars, most_expensive
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.space_spec import SpaceSpec


def hwc(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}x{shape[2]}x{shape[0]}"


def published_name(operator: Operator, position: int) -> str:
    """Return the name of an operator in the Pixel 1 table, as the paper's code defines it."""
    source, target = hwc(operator.input_shape), hwc(operator.output_shape)
    if operator.kind == "conv":
        return f"{'Conv' if position == 0 else 'Conv_1'}-input:{source}-output:{target}"
    if operator.kind == "classifier":
        return f"Logits-input:{source}-output:{operator.output_shape[0]}"
    return (
        f"expanded_conv-input:{source}-output:{target}-expand:{operator.expansion}-kernel:{operator.kernel}"
        f"-stride:{operator.stride}-idskip:{int(operator.residual)}"
    )


def test_pixel_1_sums_are_those_by_hand(shared_data: Path) -> None:
    path = shared_data / "latency" / "mobile" / "pixel1_proxylessnas.yaml"
    entries = yaml.safe_load(path.read_text())
    found = import_table(path, "proxylessnas", device="Pixel 1")
    assert found.known == len(entries) == 72
    assert found.lacks["mobilenetv2_imagenet"] == (70, ())
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet")
    costs = found.table.costs(spec)
    for seed in range(20):
        architecture = random_architecture(spec, random.Random(seed))
        by_hand = sum(entries[published_name(op, i)]["mean"] for i, op in enumerate(architecture.operators()))
        assert costs.of(architecture.choices) == pytest.approx(by_hand, rel=1e-12)


def test_once_for_all_keeps_what_it_cannot_map(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "latency" / "mobile" / "note10_mobilenetv3_224.yaml"
    entries = yaml.safe_load(path.read_text())
    found = import_table(path, "once-for-all")
    assert len(found.table.operators) == len(entries)
    plain = [name for name in entries if name.startswith("expanded_conv") and name.endswith("-se:0-hs:0")]
    assert found.known == len(plain) + 1  # one more for the classifier
    assert len(found.by_name) == len(entries) - found.known
    operator = Operator("mbconv", (24, 112, 112), (32, 56, 56), 5, 3, 2)
    name = "expanded_conv-input:112x112x24-output:56x56x32-expand:72-kernel:5-stride:2-idskip:0-se:0-hs:0"
    assert found.table.operators[operator].cost == entries[name]["mean"]
    assert found.table.operators[operator].spread == pytest.approx(entries[name]["std"] / entries[name]["count"] ** 0.5)
    assert LatencyTable.load(found.table.save(tmp_path / "t.yml")) == found.table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Conv-input:8x8x3-output:4x4x8: 3", "must be a mapping with mean"),
        ("Conv-input:8x8x3-output:4x4x8: {count: 3}", "mean must be a positive number, got None"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: .inf, count: 3}", "mean must be a finite number, got inf"),
        ("Conv-input:8x8x3-output:4x4x8: {mean: 1, count: 3, var: -1}", "var must be a positive number, got -1"),
        ("Something: {mean: 1, count: 3}", "does not name an operator"),
        ("Pool-input:8x8x3: {mean: 1, count: 3}", "no entry that is an operator"),
        ("- 1", "must be a mapping of keys"),
    ],
)
def test_bad_published_tables(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(content)
    with pytest.raises(LatencyTableError, match=message):
        import_table(path, "proxylessnas")
    with pytest.raises(InputError, match="unknown format 'ofa'"):
        import_table(path, "ofa")


def test_comparison_by_hand(tiny_table: LatencyTable) -> None:
    """Compare a table with one in which every operator is twice as slow, except one that is six times as slow."""
    odd = next(op for op in tiny_table.operators if isinstance(op, Operator) and op.kernel == 5)
    costs = {op: OperatorCost(cost.cost * (6 if op == odd else 2)) for op, cost in tiny_table.operators.items()}
    found = compare(tiny_table, replace(tiny_table, operators=costs))
    assert found.kinds[-1].kind == "all"
    assert found.kinds[-1].operators == len(costs)
    assert found.kinds[-1].ratio == pytest.approx(2.0)
    assert [k.spearman for k in found.kinds if k.kind == "mbconv k3"] == [pytest.approx(1.0)]
    assert found.disagreements[0].entry == odd
    assert found.disagreements[0].factor == pytest.approx(3.0)
    assert (found.only_first, found.only_second) == (0, 0)
    fewer = replace(tiny_table, operators=dict(list(costs.items())[:3]))
    assert compare(tiny_table, fewer).only_first == len(costs) - 3
    other = replace(tiny_table, operators={Operator("conv", (1, 2, 2), (1, 2, 2)): OperatorCost(1.0)})
    with pytest.raises(LatencyTableError, match="no operator in common"):
        compare(tiny_table, other)


def test_what_is_shown(tiny_table: LatencyTable, tiny_spec: SpaceSpec) -> None:
    text = "\n".join(describe(tiny_table))
    assert "quality  good" in text
    bad = replace(tiny_table, calibration=Calibration(1.0, 0.0, 12, 0.71))
    assert "quality  bad: its mean error on 12 measured networks is 71.0 %" in describe(bad)
    assert "made up: none, 1 cores" in text
    assert "2 x sum +0.5 ms, by 8 whole networks, mean error 1.0 %" in text
    bars = layer_bars(tiny_table.costs(tiny_spec))
    rows = [line.split() for line in bars if line.startswith("  ")]
    assert len(rows) == sum(len(layer.names) for layer in tiny_spec.layers)
    longest = max(rows, key=lambda row: float(row[1]))
    assert longest[2] == "█" * 30
    assert [row[2] for row in rows if row[0] == "skip"] == ["▏"]
    first = most_expensive(tiny_table, 1)[0]
    assert first.split()[0] == f"{max(c.cost for c in tiny_table.operators.values()):.4g}"
