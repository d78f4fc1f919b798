"""What `search` prints of the network that it has found: target, accuracy, latency and each budget, once."""

from __future__ import annotations

from typing import Any

import pytest

from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.report.found import found_lines
from nni_proxyless.search.recipe import Recipe


def recipe(**settings: Any) -> Recipe:
    return Recipe.from_dict({"space": "mobilenetv2_digits", "target": "cpu_torch", "budget_ms": 2.0, **settings})


def network(spec: SpaceSpec, **details: Any) -> Architecture:
    known = {"metrics": {"default": 0.91234}, "budget_ms": 2.0, "predicted_latency_ms": 1.98765}
    return Architecture.of_space(spec, {layer.label: layer.names[0] for layer in spec.layers}, **{**known, **details})


@pytest.mark.parametrize(
    ("details", "settings", "lines"),
    [
        (
            {"measured_latency_ms": 1.9},
            {},
            ["cpu_torch: accuracy 0.9123, predicted 1.988 ms, measured 1.9 ms", "budget kept: cpu_torch 1.988 of 2 ms"],
        ),
        (
            {"measured_latency_ms": 2.1},
            {},
            [
                "cpu_torch: accuracy 0.9123, predicted 1.988 ms, measured 2.1 ms",
                "budget kept according to the table, NOT kept when measured: cpu_torch 1.988 of 2 ms, measured 2.1 ms",
            ],
        ),
        (
            {"budgets": {"parameters": {"limit": 250_000.0, "value": 198_233.0},
                         "peak_memory_int8": {"limit": 32_768.0, "value": 30_720.0}}},
            {},
            [
                "cpu_torch: accuracy 0.9123, predicted 1.988 ms, not measured",
                "budget kept according to the table: cpu_torch 1.988 of 2 ms",
                "budget kept: parameters 198,233 of 250,000",
                "budget kept: peak_memory_int8 30 of 32 KiB",
            ],
        ),
        (
            {"predicted_latency_ms": 2.5},
            {"objective": "add_linear"},
            [
                "cpu_torch: accuracy 0.9123, predicted 2.5 ms, not measured",
                "budget reference of the objective: cpu_torch 2.5 of 2 ms",
            ],
        ),
        ({"budget_ms": None}, {"budget_ms": None}, ["cpu_torch: accuracy 0.9123, predicted 1.988 ms, not measured"]),
    ],
    ids=["kept", "not kept when measured", "several", "reference", "none"],
)  # fmt: skip
def test_lines(tiny_spec: SpaceSpec, details: dict[str, Any], settings: dict[str, Any], lines: list[str]) -> None:
    assert found_lines(network(tiny_spec, **details), recipe(**settings)) == lines
