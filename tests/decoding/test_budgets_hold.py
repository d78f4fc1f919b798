"""Random combinations of budgets on the shipped spaces: each holds for the network that is built, or is impossible.

The quantities are computed again from the PyTorch module and from its exported file. A refusal is checked by linear and
integer programmes with matrices of their own, and in a small space by enumeration.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nni_proxyless.decoding.budgets import QUANTITIES, constraints_of, parse_budgets, quantity_of
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.errors import InputError
from nni_proxyless.latency import LatencyTable
from nni_proxyless.latency.entries import Entry
from nni_proxyless.latency.table import Calibration
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.footprint import network_peak_bytes
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import made_up_table
from tests.network.test_footprint import liveness_peak, trained_looking

SPACES = ("mobilenetv2_digits", "mobilenetv2_cifar", "mobilenetv2_imagenet")
COMBINATIONS = 70  # for each space
TARGETS = ("phone", "board")


def random_tables(spec: SpaceSpec, generator: random.Random) -> dict[str, LatencyTable]:
    """Tables of two devices on which the same operators take different times."""
    made = {}
    for name in TARGETS:
        costs: dict[Entry, float] = {
            operator: (0.01 + operator.multiply_adds / 1e7) * generator.uniform(0.3, 1.7)
            for operator in spec.distinct_operators()
        }
        made[name] = made_up_table(costs, Calibration(1.0, 0.0, 8, 0.01), spec.name)
    return made


def random_limits(generator: random.Random, lowest: float) -> dict[str, str]:
    names = generator.sample([*TARGETS, *QUANTITIES], generator.randint(2, 5))
    return {name: f"{generator.uniform(lowest, 100):.2f}%" for name in names}


def random_probs(spec: SpaceSpec, generator: random.Random) -> dict[str, Tensor]:
    """Path probabilities as late in a search, with some paths that were pruned."""
    rng = np.random.default_rng(generator.getrandbits(32))
    made = {}
    for layer in spec.layers:
        values = rng.dirichlet(np.full(len(layer.names), 0.5))
        values[rng.random(len(values)) < 0.1] = 0.0
        made[layer.label] = torch.tensor(values if values.any() else np.ones(len(values)))
    return made


def measured(architecture: Architecture, tables: Mapping[str, LatencyTable]) -> dict[str, float]:
    """Latencies by the tables' rows, and parameters and multiply-adds of the network as PyTorch counts them."""
    network = architecture.build().eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.zeros(1, *architecture.spec.input_shape))
    operators = architecture.operators()
    return {
        **{name: sum(table.operators[operator].cost for operator in operators) for name, table in tables.items()},
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": counter.get_total_flops() / 2,
    }


def measured_on_file(architecture: Architecture) -> dict[str, float]:
    """Size of the exported files, and the memory of a liveness analysis of the graph."""
    model = export_onnx(trained_looking(architecture.build()), architecture.spec.input_shape, 1)
    peak = liveness_peak(model)
    return {
        "file_size": len(model),
        "file_size_int8": len(quantize_static(model)),
        "peak_memory": 4 * peak,
        "peak_memory_int8": peak,
    }


def is_possible(probs: Mapping[str, Tensor], limits: list[Constraint], spec: SpaceSpec) -> bool:
    """Whether some network is within the limits, by a linear and, if that does not decide, an integer programme."""
    left = [(layer, i) for layer in spec.layers for i in range(len(layer.names)) if probs[layer.label][i] > 0]
    one = np.array([[float(other is layer) for other, _ in left] for layer in spec.layers])
    upper = np.ones(len(left))
    rows, room = [], []
    for limit in limits:
        if limit.name in ("peak_memory", "peak_memory_int8"):
            dtype: Any = "int8" if limit.name.endswith("int8") else "float32"
            if network_peak_bytes(spec.fixed_operators[:1], dtype) > limit.limit:
                return False
            blocks = [list(layer.candidates.values())[i] for layer, i in left]
            upper *= [1.0 if op is None or quantity_of(limit.name, op) <= limit.limit else 0.0 for op in blocks]
            if any(quantity_of(limit.name, op) > limit.limit for op in spec.fixed_operators):
                return False
        else:
            rows.append([limit.costs.layers[layer.label][i] / limit.limit for layer, i in left])
            room.append((limit.limit - limit.costs.fixed) / limit.limit)
    zero = np.zeros(len(left))
    bounds = np.stack([zero, upper], axis=1)
    relaxed = linprog(zero, rows or None, room or None, one, np.ones(len(one)), bounds)
    if relaxed.status == 2:
        return False
    together = [LinearConstraint(one, 1, 1), *([LinearConstraint(np.array(rows), -np.inf, room)] if rows else [])]
    exact = milp(zero, constraints=together, bounds=Bounds(0, upper), integrality=np.ones(len(left)))
    return bool(exact.status != 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_every_network_is_within_all_budgets_or_none_exists(name: str) -> None:
    spec = SpaceSpec.from_yaml(name)
    generator = random.Random(name)
    tables = random_tables(spec, generator)
    latencies = {target: table.costs(spec) for target, table in tables.items()}
    refused = 0
    for _ in range(COMBINATIONS):
        probs = random_probs(spec, generator)
        limits = constraints_of(parse_budgets(random_limits(generator, 40)), latencies, spec)
        try:
            choices = likeliest_satisfying(probs, limits)[0]
        except InputError:
            assert not is_possible(probs, list(limits), spec)
            refused += 1
            continue
        architecture = Architecture.of_space(spec, choices)
        values = measured(architecture, tables)
        for limit in limits:
            if limit.name in values:
                assert values[limit.name] <= limit.limit * (1 + 1e-9), limit
                assert values[limit.name] == pytest.approx(limit.of(choices))
            assert limit.of(choices) <= limit.limit * (1 + 1e-9), limit  # test_footprint compares these with files
    assert 3 <= refused <= COMBINATIONS - 30


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_exported_files_are_within_all_budgets(name: str) -> None:
    spec = SpaceSpec.from_yaml(name)
    generator = random.Random(name)
    tables = random_tables(spec, generator)
    latencies = {target: table.costs(spec) for target, table in tables.items()}
    checked = 0
    while checked < 3:
        stated = {
            **{quantity: f"{generator.uniform(40, 90):.2f}%" for quantity in (*QUANTITIES, *TARGETS)},
            "peak_memory": "100%",
        }
        limits = constraints_of(parse_budgets(stated), latencies, spec)
        try:
            choices = likeliest_satisfying(random_probs(spec, generator), limits)[0]
        except InputError:
            continue
        checked += 1
        architecture = Architecture.of_space(spec, choices)
        values = measured(architecture, tables) | measured_on_file(architecture)
        assert set(values) == set(stated)
        for limit in limits:
            assert values[limit.name] <= limit.limit * (1 + 1e-9), limit


def test_refusals_in_a_small_space_are_those_of_brute_force(tiny_spec: SpaceSpec) -> None:
    generator = random.Random(0)
    tables = random_tables(tiny_spec, generator)
    latencies = {target: table.costs(tiny_spec) for target, table in tables.items()}
    labels = [layer.label for layer in tiny_spec.layers]
    networks = []
    for picks in itertools.product(*(layer.names for layer in tiny_spec.layers)):
        architecture = Architecture.of_space(tiny_spec, dict(zip(labels, picks, strict=True)))
        operators = architecture.operators()
        values = measured(architecture, tables)
        values |= {q: sum(quantity_of(q, op) for op in operators) for q in ("file_size", "file_size_int8")}
        values |= {
            "peak_memory": network_peak_bytes(operators),
            "peak_memory_int8": network_peak_bytes(operators, "int8"),
        }
        networks.append((architecture.choices, values))
    outcomes = set()
    for _ in range(100):
        probs = {layer.label: torch.rand(len(layer.names), dtype=torch.float64) + 0.01 for layer in tiny_spec.layers}
        limits = constraints_of(parse_budgets(random_limits(generator, 40)), latencies, tiny_spec)
        within = [
            choices for choices, values in networks
            if all(values[limit.name] <= limit.limit * (1 + 1e-9) for limit in limits)
        ]  # fmt: skip
        outcomes.add(bool(within))
        if not within:
            with pytest.raises(InputError, match="no network of this space is within"):
                likeliest_satisfying(probs, limits)
            continue
        names = {layer.label: layer.names for layer in tiny_spec.layers}

        def likelihood(choices: Mapping[str, Any], probs: Any = probs, names: Any = names) -> float:
            return float(np.prod([float(probs[k][names[k].index(v)]) for k, v in choices.items()]))

        assert likeliest_satisfying(probs, limits)[0] == max(within, key=likelihood)
    assert outcomes == {True, False}
