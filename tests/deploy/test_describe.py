from __future__ import annotations

from dataclasses import replace

import pytest

from nni_proxyless import Architecture
from nni_proxyless.deploy.describe import blocks, describe, differences
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.space_spec import SpaceSpec

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}


def test_blocks_are_the_networks_and_skips_stay_visible(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    found = Architecture.of_space(tiny_spec, CHOICES)
    listed = blocks(found, tiny_table)
    assert [b.operator for b in listed if not b.skipped] == found.operators()
    assert [b.name for b in listed if b.skipped] == ["stage1_layer2"]
    assert [b.stage for b in listed] == [0, 0, 1, 1, 2, 0, 0]
    total = sum(b.latency_ms for b in listed if b.latency_ms is not None) + tiny_table.calibration.offset_ms
    assert total == pytest.approx(tiny_table.costs(tiny_spec).of(CHOICES))


def test_the_text_has_every_block_and_the_sums(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    found = Architecture.of_space(tiny_spec, CHOICES)
    lines = describe(found, tiny_table)
    assert lines[0].split()[:4] == ["block", "output", "kernel", "expansion"]
    assert len(lines) == 1 + 7 + 2
    assert lines[4].split()[:2] == ["stage1_layer2", "skipped"]
    assert lines[3].split()[:5] == ["stage1_layer1", "8x4x4", "5", "2", "2"]
    assert f"{found.parameters:,} parameters, {found.multiply_adds:,} multiply-adds" in lines[-2]
    assert f"{tiny_table.costs(tiny_spec).of(CHOICES):.4g} ms on made up" in lines[-2]
    assert "+0.5 ms of that belong to no block" in lines[-1]
    assert "share" not in describe(found)[0]


def test_differences(tiny_spec: SpaceSpec) -> None:
    first = Architecture.of_space(tiny_spec, CHOICES)
    second = Architecture.of_space(tiny_spec, {**CHOICES, "stage2_layer1": "k5_e1"})
    assert first.diff(first) == []
    assert first.diff(second) == [("stage2_layer1", "k3_e1", "k5_e1")]
    assert differences(first, first)[0] == "the two choose the same candidates"
    shown = differences(first, second)
    assert shown[1].split() == ["stage2_layer1", "k3_e1", "k5_e1"]
    assert f"{first.parameters:,} against {second.parameters:,}" in shown[2]
    other = replace(first, choices={"elsewhere": "a"}, spec=None)
    assert ("elsewhere", None, "a") in first.diff(other)
