"""Choices of values: slices of shared weights, regions, and gradients compared with enumeration of all outcomes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import nni
import pytest
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv1d,
    MutableConv2d,
    MutableConvTranspose2d,
    MutableDropout,
    MutableEmbedding,
    MutableGRU,
    MutableLayerNorm,
    MutableLinear,
    MutableLSTM,
    MutableMaxPool2d,
    MutableModule,
    MutableMultiheadAttention,
    ParametrizedModule,
    Repeat,
)
from torch import Tensor, nn

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import SpaceError
from nni_proxyless.supernet.binary_gates import PathSample, path_probs
from nni_proxyless.supernet.gate import probing
from nni_proxyless.supernet.gated_values import GatedValue
from nni_proxyless.supernet.regions import run_all_paths, widen
from nni_proxyless.supernet.single_path import single_path
from tests.supernet.test_binary_gates import finite_difference


class Space(ModelSpace):
    """Space whose parts are made by a function, so that their labels belong to it."""

    def __init__(self, make: Callable[[], dict[str, nn.Module]], run: Callable[[Any, Any], Any] | None = None) -> None:
        super().__init__()
        for name, module in make().items():
            self.add_module(name, module)
        self.run = run

    def forward(self, x: Any) -> Any:
        if self.run is not None:
            return self.run(self, x)
        for module in self.children():
            x = module(x)
        return x


class Scaled(ParametrizedModule):
    """A user's own module, with a parameter, a module and a buffer whose sizes are chosen."""

    def __init__(self, size: int, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        self.linear = nn.Linear(size, 3)
        self.register_buffer("seen", torch.zeros(size))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += x.detach().mean(0)
        return self.linear(x[:, : len(self.weight)] * self.weight * self.factor) + self.seen.sum()  # type: ignore[no-any-return]


def convolutions() -> dict[str, nn.Module]:
    width, ratio, kernel = nni.choice("width", [4, 8, 6]), nni.choice("ratio", [1, 2]), nni.choice("kernel", [3, 5, 1])
    hidden = width * ratio
    return {
        "first": MutableConv2d(3, width, kernel, padding=kernel // 2),
        "norm": MutableBatchNorm2d(width),
        "body": nn.Sequential(
            MutableConv2d(width, hidden, kernel, padding=kernel // 2, groups=width, bias=False),
            MutableBatchNorm2d(hidden, affine=False, eps=nni.choice("eps", [1e-5, 0.1])),
            nn.ReLU(),
            MutableConvTranspose2d(hidden, width, kernel_size=2, stride=2),
            MutableMaxPool2d(nni.choice("pool", [2, 4])),
            MutableConv2d(width, MutableExpression.max(width, 5), 1, padding_mode="circular"),
            MutableConv2d(MutableExpression.max(width, 5), 4, 1),
        ),
        "pool": nn.AdaptiveAvgPool2d(1),
    }


def sequences() -> dict[str, nn.Module]:
    dim, heads, hidden = nni.choice("dim", [4, 8]), nni.choice("heads", [1, 2]), nni.choice("hidden", [3, 5])
    return {
        "embed": MutableEmbedding(7, dim),
        "norm": MutableLayerNorm(dim),
        "attend": MutableMultiheadAttention(dim, heads, batch_first=True),
        "conv": MutableConv1d(dim, dim, nni.choice("width", [1, 3]), padding="same"),
        "lstm": MutableLSTM(dim, hidden, batch_first=True, bidirectional=True, num_layers=2),
        "gru": MutableGRU(2 * hidden, hidden, batch_first=True),
        "own": Scaled(hidden, nni.choice("factor", [0.5, 2.0])),
        "drop": MutableDropout(nni.choice("p", [0.0, 0.5])),
    }


def run_sequences(space: Any, x: Tensor) -> Tensor:
    y = space.norm(space.embed(x))
    y = y + space.attend(y, y, y)[0]
    y = space.conv(y.transpose(1, 2)).transpose(1, 2)
    y = space.gru(space.lstm(y)[0])[0]
    return space.drop(space.own(y[:, -1]))  # type: ignore[no-any-return]


CASES = {
    "convolutions": (convolutions, None, lambda: torch.randn(4, 3, 8, 8)),
    "sequences": (sequences, run_sequences, lambda: torch.randint(0, 7, (4, 5))),
}


def supernet(make: Any, run: Any = None) -> tuple[Any, Any]:
    strategy = ProxylessNAS()
    return strategy.mutate_model(Space(make, run)), strategy._gates


def samples(gates: Any) -> list[dict[str, Any]]:
    return [
        dict(zip(gates, picks, strict=True)) for picks in itertools.product(*(g.candidates for g in gates.values()))
    ]


@pytest.mark.parametrize("case", CASES)
def test_every_network_computes_what_the_frozen_one_does_with_its_weights(case: str) -> None:
    torch.manual_seed(0)
    make, run, data = CASES[case]
    net, gates = supernet(make, run)
    for _ in range(6):  # statistics that differ between sizes
        for gate in gates.values():
            gate.draw_path()
        net(data())
    net.eval()
    x = data()
    outputs = []
    picked = samples(gates) if "p" not in gates else [s for s in samples(gates) if s["p"] == 0.0]
    for sample in random.Random(0).sample(picked, 24):
        with single_path(net, sample), torch.no_grad():
            found = net(x)
        frozen = net.freeze(sample)
        assert type(frozen) is Space
        assert not any(
            isinstance(m, MutableModule) for n, m in frozen.named_modules() if n and not isinstance(m, Scaled)
        )
        torch.testing.assert_close(frozen.eval()(x), found, rtol=1e-5, atol=1e-6)
        shapes = {name: value.shape for name, value in Space(make, run).freeze(sample).state_dict().items()}
        assert {name: value.shape for name, value in frozen.state_dict().items()} == shapes
        outputs.append(found.flatten())
    assert len({tuple(output.tolist()) for output in outputs}) == 24


def test_each_gate_gets_a_gradient_and_only_slices_are_trained() -> None:
    torch.manual_seed(0)
    net, gates = supernet(convolutions)
    x = torch.randn(4, 3, 8, 8)
    run_all_paths(net, gates.values(), lambda: net(x))  # the shapes of what `pool` returns differ at first
    for gate in gates.values():
        gate.draw_for_gradient("full")
    net(x).pow(2).sum().backward()
    assert all(float(gate.alpha.grad.abs().sum()) > 0 for gate in gates.values())
    net.zero_grad()
    for gate in gates.values():
        gate.sample = PathSample(0)
    net(torch.randn(4, 3, 8, 8)).pow(2).sum().backward()
    weight = net.first.sliced.shared.weight
    assert weight.shape == (8, 3, 5, 5)
    trained = weight.grad != 0
    assert bool(trained[:4, :, 1:4, 1:4].all())  # the first channels, and the centre of the kernel
    assert int(trained.sum()) == 4 * 3 * 9


def test_slices_of_small_modules_start_at_the_scale_of_the_module() -> None:
    """Two numbers say nothing about a scale, so weights that the original lacks start as those of the largest."""
    for seed in range(30):
        torch.manual_seed(seed)
        net, _ = supernet(lambda: {"layer": MutableLinear(nni.choice("a", [1, 4]), 2, bias=False)})
        weight = net.layer.sliced.shared.weight.detach()
        assert float(weight[:, 1:].abs().max()) <= 0.5  # 1 / sqrt(4), the bound of torch's initialisation
        assert float(weight[:, :1].abs().max()) <= 1.0


def test_statistics_of_batch_norm_are_apart() -> None:
    net, gates = supernet(convolutions)
    norm = net.norm
    before = {n: m.running_mean.clone() for n, m in norm.sliced.sizes.items()}
    for gate in gates.values():
        gate.sample = PathSample(1)
    net(torch.randn(4, 3, 8, 8) + 3)
    moved = [n for n, m in norm.sliced.sizes.items() if not torch.equal(m.running_mean, before[n])]
    assert [len(norm.sliced.sizes[n].running_mean) for n in moved] == [8]
    assert {len(m.running_mean) for m in norm.sliced.sizes.values()} == {4, 8, 6}


def test_queries_keys_and_values_are_sliced_each() -> None:
    net, gates = supernet(sequences, run_sequences)
    full = net.attend.sliced.shared.in_proj_weight.detach()
    small = net.freeze({label: gate.candidates[0] for label, gate in gates.items()}).attend.in_proj_weight
    assert torch.equal(small, torch.cat([full[8 * part : 8 * part + 4, :4] for part in range(3)]))
    full = net.gru.sliced.shared.weight_ih_l0.detach()  # reset, update and new gates of 5 units each
    small = net.freeze({label: gate.candidates[0] for label, gate in gates.items()}).gru.weight_ih_l0
    assert torch.equal(small, torch.cat([full[5 * part : 5 * part + 3, :6] for part in range(3)]))


def test_what_was_set_after_construction_holds_for_every_size() -> None:
    def make() -> dict[str, nn.Module]:
        width = nni.choice("width", [4, 8])
        made: dict[str, Any] = {"conv": MutableConv2d(3, width, 1), "norm": MutableBatchNorm2d(width)}
        made["norm"].eps, made["norm"].momentum = 0.25, 0.5
        nn.init.constant_(made["conv"].bias, 7.0)
        nn.init.normal_(made["conv"].weight, std=100.0)
        made["last"] = MutableConv2d(width, 2, 1)
        return made

    net, _ = supernet(make)
    assert [m.eps for m in net.norm.sliced.sizes.values()] == [0.25, 0.25]
    frozen: Any = net.freeze({"width": 8})
    assert (frozen.norm.eps, frozen.norm.momentum) == (0.25, 0.5)
    assert torch.equal(frozen.conv.bias, torch.full((8,), 7.0))
    assert 40 < float(frozen.conv.weight.detach().std()) < 250


# --- gradients ---


def double() -> tuple[Any, Any, Tensor]:
    """Two widths one after the other, and a choice in one of the layers; the loss is linear in what regions return."""
    torch.manual_seed(1)

    def make() -> dict[str, nn.Module]:
        a, b, c = nni.choice("a", [2, 5, 3]), nni.choice("b", [1, 4]), nni.choice("c", [0.5, 1.0, 2.0])
        return {
            "layers": nn.Sequential(
                MutableLinear(4, a),
                nn.Tanh(),
                MutableLinear(a, 3),
                MutableLinear(3, b),
                nn.Identity(),
                MutableLinear(b, 3),
            ),
            "slope": nn.Sequential(MutableLinear(3, 2), nn.Identity(), Slope(c)),
        }

    net, gates = supernet(make)
    return net.double(), gates, torch.randn(1, 4, dtype=torch.float64)


class Slope(ParametrizedModule):
    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        return self.c * x


def nested() -> tuple[Any, Any, Tensor]:
    """A width in the whole network around a LayerChoice, and a second width inside one of its candidates."""
    torch.manual_seed(2)

    def make() -> dict[str, nn.Module]:
        a, b = nni.choice("a", [2, 4, 3]), nni.choice("b", [1, 3])
        inner = nn.Sequential(MutableLinear(a, b), nn.Tanh(), MutableLinear(b, a))
        return {
            "first": MutableLinear(4, a),
            "choice": LayerChoice({"inner": inner, "plain": MutableLinear(a, a), "id": nn.Identity()}, label="l"),
            "last": MutableLinear(a, 2),
        }

    net, gates = supernet(make)
    return net.double(), gates, torch.randn(1, 4, dtype=torch.float64)


def loss_of(net: Any, sample: dict[str, Any], x: Tensor) -> Tensor:
    with single_path(net, sample), torch.no_grad():
        return net(x).sum()  # type: ignore[no-any-return]


@pytest.mark.parametrize("of", [double, nested])
def test_full_gradient_is_exact_in_expectation_over_all_outcomes(of: Any) -> None:
    net, gates, x = of()
    torch.manual_seed(3)
    for gate in gates.values():
        gate.alpha.data = torch.randn(gate.num_candidates, dtype=torch.float64)
    counts = [gate.num_candidates for gate in gates.values()]
    outcomes = list(itertools.product(*map(range, counts)))
    losses = torch.zeros(counts, dtype=torch.float64)
    totals = {label: torch.zeros_like(gate.alpha) for label, gate in gates.items()}
    for paths in outcomes:
        losses[paths] = loss_of(net, {g.label: g.candidates[i] for g, i in zip(gates.values(), paths, strict=True)}, x)
        probability = 1.0
        for gate, path in zip(gates.values(), paths, strict=True):
            gate.sample = PathSample(path, tuple(i for i in range(gate.num_candidates) if i != path))
            probability *= float(gate.probs().detach()[path])
        net.zero_grad()
        net(x).sum().backward()
        for label, gate in gates.items():
            if gate.alpha.grad is not None:
                totals[label] += probability * gate.alpha.grad
    for number, (label, gate) in enumerate(gates.items()):

        def expected(alpha: Tensor, number: int = number) -> Tensor:
            value = losses
            for other, of_other in reversed(list(enumerate(gates.values()))):
                value = value @ path_probs(alpha if other == number else of_other.alpha.detach())
            return value

        torch.testing.assert_close(
            totals[label], finite_difference(expected, gate.alpha.detach()), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("of", [double, nested])
def test_two_path_gradient_is_exact_given_the_pairs(of: Any) -> None:
    """Enumerate the outcomes of given pairs, one pair of values for each gate."""
    net, gates, x = of()
    torch.manual_seed(4)
    pairs = {}
    for label, gate in gates.items():
        gate.alpha.data = torch.randn(gate.num_candidates, dtype=torch.float64)
        pairs[label] = torch.randperm(gate.num_candidates)[:2].tolist()
    losses = torch.zeros([2] * len(gates), dtype=torch.float64)
    totals = {label: torch.zeros_like(gate.alpha) for label, gate in gates.items()}
    for picks in itertools.product((0, 1), repeat=len(gates)):
        probability = 1.0
        for (label, gate), pick in zip(gates.items(), picks, strict=True):
            gate.sample = PathSample(pairs[label][pick], (pairs[label][1 - pick],))
            probability *= float(torch.softmax(gate.alpha.detach()[pairs[label]], 0)[pick])
        sample = {label: gate.candidates[gate.sample.active] for label, gate in gates.items()}
        losses[picks] = loss_of(net, sample, x)
        net.zero_grad()
        net(x).sum().backward()
        for label, gate in gates.items():
            if gate.alpha.grad is not None:
                totals[label] += probability * gate.alpha.grad
    for number, (label, gate) in enumerate(gates.items()):

        def expected(alpha: Tensor, number: int = number) -> Tensor:
            value = losses
            for other, (name, of_other) in reversed(list(enumerate(gates.items()))):
                value = value @ torch.softmax((alpha if other == number else of_other.alpha.detach())[pairs[name]], 0)
            return value

        torch.testing.assert_close(
            totals[label], finite_difference(expected, gate.alpha.detach()), rtol=1e-5, atol=1e-7
        )


def test_weights_get_the_gradient_of_the_active_network_alone() -> None:
    net, gates, x = double()
    active = {label: gate.num_candidates - 1 for label, gate in gates.items()}
    found = []
    for inactive in (False, True):
        for label, gate in gates.items():
            others = tuple(range(gate.num_candidates - 1)) if inactive else ()
            gate.sample = PathSample(active[label], others)
        net.zero_grad()
        net(x).sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None and "alpha" not in name})
    assert found[0].keys() == found[1].keys()
    torch.testing.assert_close(*found)


def test_a_step_costs_the_sum_over_labels_and_not_their_product() -> None:
    """Nested regions: in an inactive pass, which has no graph, all other gates run their active path alone."""
    net, gates, x = nested()
    calls: list[bool] = []
    for module in net.modules():
        if isinstance(module, GatedValue):
            module.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    for gate in gates.values():
        gate.sample = PathSample(0, tuple(range(1, gate.num_candidates)))
    net(x)
    # Active: the first, two and the last. Inactive: two widths of four modules, one `b` of two, `plain` of one.
    assert (calls.count(True), calls.count(False)) == (4, 2 * 4 + 2 + 1)


def test_depths_of_several_choices_are_searched() -> None:
    torch.manual_seed(0)

    def make() -> dict[str, nn.Module]:
        return {"deep": Repeat(lambda _: nn.Linear(3, 3), nni.choice("a", [1, 2]) + nni.choice("b", [0, 2]))}

    net, gates = supernet(make)
    x = torch.randn(2, 3)
    for sample in samples(gates):
        with single_path(net, sample):
            torch.testing.assert_close(net(x), net.freeze(sample)(x))
    for gate in gates.values():
        gate.draw_for_gradient("full")
    net(x).sum().backward()
    assert all(float(gate.alpha.grad.abs().sum()) > 0 for gate in gates.values())


# --- regions ---


def test_a_region_is_widened_until_its_outputs_are_alike() -> None:
    def make() -> dict[str, nn.Module]:
        return {"body": nn.Sequential(MutableLinear(4, nni.choice("w", [2, 3])), nn.Tanh()), "head": nn.Linear(1, 2)}

    def run(space: Any, x: Tensor) -> Tensor:
        return space.head(space.body(x).mean(1, keepdim=True))  # type: ignore[no-any-return]

    net, gates = supernet(make, run)
    x = torch.randn(5, 4)
    with (
        probing(gates.values()),
        pytest.raises(SpaceError, match=r"'w': candidate '2' returns a tensor of shape \(5, 2\)"),
    ):
        net(x)
    run_all_paths(net, gates.values(), lambda: net(x))
    gates["w"].draw_for_gradient("full")
    net(x).sum().backward()
    assert float(gates["w"].alpha.grad.abs().sum()) > 0
    assert not widen(net, gates["w"])


def test_a_module_outside_of_every_region_is_named() -> None:
    def make() -> dict[str, nn.Module]:
        return {
            "body": nn.Sequential(MutableLinear(4, nni.choice("w", [2, 3])), MutableLinear(nni.choice("w", [2, 3]), 2))
        }

    def run(space: Any, x: Tensor) -> Tensor:
        for layer in space.body:
            x = layer(x)
        return x

    net, gates = supernet(make, run)
    with (
        probing(gates.values()),
        pytest.raises(SpaceError, match="choice 'w': a module that depends on it does not run"),
    ):
        net(torch.randn(5, 4))
    assert widen(net, gates["w"])
    with probing(gates.values()):
        net(torch.randn(5, 4))


def test_value_choices_that_cannot_be_searched_are_refused() -> None:
    class Dangling(MutableModule):
        def __init__(self) -> None:
            super().__init__()
            self.add_mutable(nni.choice("d", [1, 2]))

    class Around(ParametrizedModule):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.choice = LayerChoice([nn.Linear(size, 2), nn.Linear(size, 2)], label="inside")

    labels = [nni.choice(f"x{i}", list(range(1, 12))) for i in range(5)]
    for make, message in (
        (lambda: {"own": Dangling()}, "module 'own' is a Dangling with the choice d, which is not supported"),
        (
            lambda: {"own": Around(nni.choice("n", [2, 3]))},
            "module 'own' is a Around with choices in its arguments and",
        ),
        (
            lambda: {"own": MutableLinear(sum(labels[1:], labels[0]), 2)},
            "depends on 5 choices with 161051 combinations",
        ),
        (
            lambda: {"own": MutableConv2d(6, 6, 1, groups=nni.choice("g", [2, 4]))},
            r"module 'own' \(MutableConv2d\) cannot be built with every combination of its choices g: in_channels must",
        ),
    ):
        with pytest.raises(SpaceError, match=message) as raised:
            supernet(make)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500
