"""Cells: the supernet computes what the frozen network does, and gradients are exact in expectation."""

from __future__ import annotations

import itertools
import random
from typing import Any

import nni
import pytest
import torch
from nni.mutable import ExpressionConstraint
from nni.nas.hub.pytorch import NasBench101
from nni.nas.hub.pytorch.nasnet import NDS
from nni.nas.nn.pytorch import Cell, ModelSpace
from torch import Tensor, nn

from nni_proxyless import ProxylessNAS
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.errors import InputError, RunError, SpaceError
from nni_proxyless.supernet.binary_gates import PathSample, path_probs
from nni_proxyless.supernet.constraints import Constraints
from nni_proxyless.supernet.gated import make_gates
from nni_proxyless.supernet.regions import run_all_paths
from nni_proxyless.supernet.single_path import single_path
from tests.supernet.test_binary_gates import finite_difference


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def made_for(node: int, number: int, taken: int | None) -> nn.Module:
    """Make an operator that depends on its node, its number there and its input."""
    return Scale(1.0 + node + 0.1 * number + 10.0 * (0 if taken is None else taken + 1))


def modules() -> Any:
    return {"linear": nn.Linear(3, 3), "scale": Scale(0.3)}


CELLS: dict[str, dict[str, Any]] = {
    "all": {"op_candidates": modules},
    "all, one predecessor": {"op_candidates": lambda: list(modules().values()), "num_predecessors": 1},
    "made for each input": {"op_candidates": lambda: {"a": made_for, "b": lambda *of: nn.Sequential(made_for(*of))}},
    "loose ends": {"op_candidates": modules, "merge_op": "loose_end"},
    "loose ends, made": {"op_candidates": lambda: [made_for, lambda *_: nn.Identity()], "merge_op": "loose_end"},
}


class Cells(ModelSpace):
    """Two cells with the same label, behind which the width of the output does not matter."""

    def __init__(self, nodes: int = 2, each: int = 1, **settings: Any) -> None:
        super().__init__()
        make = settings.pop("op_candidates")
        self.count = settings.setdefault("num_predecessors", 2)
        self.cells = nn.ModuleList(Cell(make(), nodes, each, **settings, label="c") for _ in range(2))
        self.last = Scale(2.0)

    def forward(self, x: Tensor) -> Tensor:
        for cell in self.cells:
            y = cell([x, 2 * x][: self.count])
            x = y.unflatten(1, (-1, 3)).mean(1)
        return self.last(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_computes_what_the_frozen_one_does_with_its_weights(kind: str) -> None:
    torch.manual_seed(0)
    strategy = ProxylessNAS()
    net: Any = strategy.mutate_model(Cells(each=2, **CELLS[kind]))
    x = torch.randn(4, 3)
    candidates = {label: gate.candidates for label, gate in strategy._gates.items()}
    every = list(itertools.product(*candidates.values()))
    outputs = set()
    for picks in random.Random(0).sample(every, 16):
        sample = dict(zip(candidates, picks, strict=True))
        with single_path(net, sample), torch.no_grad():
            found = net(x)
        frozen: Any = net.freeze(dict(sample))
        assert type(frozen.cells[0]) is Cell
        torch.testing.assert_close(frozen(x), found)
        outputs.add(tuple(found.flatten().tolist()))
    assert len(outputs) > 10


@pytest.mark.parametrize("kind", ["all", "made for each input", "loose ends"])
def test_full_gradient_of_a_cell_is_exact_in_expectation(kind: str) -> None:
    """All operators are linear, so the loss is linear in the output of each gate. A single cell has each label once."""
    torch.manual_seed(0)

    class One(Cells):
        def forward(self, x: Tensor) -> Tensor:
            y = self.cells[0]([x, x * torch.tensor([1.0, -1.0, 3.0], dtype=x.dtype)])
            return self.last(y.unflatten(1, (-1, 3)).mean(1))  # type: ignore[no-any-return]

    strategy = ProxylessNAS()
    space: Any = One(**CELLS[kind])
    del space.cells[1]
    net = strategy.mutate_model(space).double()
    gates = strategy._gates
    x = torch.randn(2, 3, dtype=torch.float64)
    run_all_paths(net, gates.values(), lambda: net(x))
    for gate in gates.values():
        gate.alpha.data = torch.randn(gate.num_candidates, dtype=torch.float64)
    counts = [gate.num_candidates for gate in gates.values()]
    losses = torch.zeros(counts, dtype=torch.float64)
    totals = {label: torch.zeros(gate.num_candidates, dtype=torch.float64) for label, gate in gates.items()}
    for paths in itertools.product(*map(range, counts)):
        probability = 1.0
        for gate, path in zip(gates.values(), paths, strict=True):
            gate.sample = PathSample(path)
            probability *= float(gate.probs().detach()[path])
        losses[paths] = net(x).sum().detach()
        for gate, path in zip(gates.values(), paths, strict=True):
            gate.sample = PathSample(path, tuple(i for i in range(gate.num_candidates) if i != path))
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

        wanted = finite_difference(expected, gate.alpha.detach())
        torch.testing.assert_close(totals[label], wanted, rtol=1e-5, atol=1e-7)


def test_loose_ends_before_layers_of_fixed_width_are_refused() -> None:
    class Fixed(Cells):
        def forward(self, x: Tensor) -> Tensor:
            y = self.cells[0]([x, x])
            return nn.functional.linear(y, torch.ones(2, 6))

    strategy = ProxylessNAS()
    net = strategy.mutate_model(Fixed(**CELLS["loose ends"]))
    with pytest.raises(
        SpaceError, match="Cell 'c' has merge_op='loose_end', so the width of its output depends on its"
    ):
        run_all_paths(net, strategy._gates.values(), lambda: net(torch.randn(4, 3)))


def test_subclasses_of_cells_and_unlabelled_choices_in_operators_are_refused() -> None:
    class Own(Cell):
        pass

    class OfOwn(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Own(modules(), 1, label="c")

    with pytest.raises(SpaceError, match="module 'cell' is a Own, a subclass of Cell, which is not supported"):
        ProxylessNAS().mutate_model(OfOwn())


class Small(NDS):
    """Few operators, loose ends, and choices of width and depth: with 3 cells, a stage has one, with 5 up to two."""

    def __init__(self) -> None:
        super().__init__(["skip_connect", "sep_conv_3x3", "max_pool_3x3"], "loose_end", 2, (4, 8), (3, 4, 5), "cifar")


@pytest.fixture(scope="module")
def nds() -> tuple[Any, Any]:
    torch.manual_seed(0)
    strategy = ProxylessNAS()
    return strategy.mutate_model(Small()), strategy


def test_networks_of_the_nds_family_are_the_ones_that_nni_builds_with_the_supernets_weights(nds: Any) -> None:
    net, strategy = nds
    gates = strategy._gates
    x = torch.randn(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    net.train()
    shapes = set()
    for number in range(6):
        for gate in gates.values():
            gate.draw_path(generator)
        gates["depth"].sample = PathSample(number % 3)
        with torch.no_grad():
            net(x)  # moves the statistics of batch-norms
        sample = {label: gate.value for label, gate in gates.items()}
        network = net.freeze(dict(sample)).eval()
        built = Small().freeze(dict(sample)).state_dict()
        assert {name: value.shape for name, value in network.state_dict().items()} == {
            name: value.shape for name, value in built.items()
        }
        with single_path(net.eval(), sample), torch.no_grad():
            torch.testing.assert_close(net(x), network(x))
        net.train()
        shapes.add((len(network.stages[2]), tuple(network.classifier.weight.shape)))
    assert len(shapes) > 3


@pytest.mark.parametrize("mode", ["full", "two_path"])
def test_all_choices_of_the_nds_family_get_gradients(nds: Any, mode: Any) -> None:
    net, strategy = nds
    x = torch.randn(2, 3, 8, 8)
    generator = torch.Generator().manual_seed(0)
    run_all_paths(net, strategy._gates.values(), lambda: net(x))
    heard = set()
    for _ in range(3):
        for gate in strategy._gates.values():
            gate.draw_for_gradient(mode, generator)
        net.zero_grad()
        net(x).pow(2).sum().backward()
        for label, gate in strategy._gates.items():
            if gate.alpha.grad is not None and float(gate.alpha.grad.abs().sum()) > 0:
                heard.add(label)
    assert heard == {label for label, gate in strategy._gates.items() if gate.num_candidates > 1}


def test_stages_without_cells_are_refused() -> None:
    space = NDS(["skip_connect", "max_pool_3x3"], "all", 1, 4, (2, 3), "cifar")
    with pytest.raises(SpaceError, match=r"num_cells=.* of NDS has networks with a stage without cells"):
        ProxylessNAS().mutate_model(space)


# --- NasBench101 and constraints ---


@pytest.fixture(scope="module")
def nasbench101() -> tuple[Any, Any]:
    torch.manual_seed(0)
    strategy = ProxylessNAS()
    space = NasBench101(stem_out_channels=6, num_stacks=2, num_modules_per_stack=1, max_num_vertices=5, max_num_edges=5)
    return strategy.mutate_model(space), strategy


def test_nasbench101_computes_what_the_fixed_network_does(nasbench101: Any) -> None:
    net, strategy = nasbench101
    gates = strategy._gates
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    edges = set()
    for _ in range(6):
        strategy._constraints.draw(gates, lambda gate: gate.draw_path(generator))
        net.train()
        with torch.no_grad():
            net(x)
        sample = {label: gate.value for label, gate in gates.items()}
        edges.add(sum(len(sample[f"cell/input{i}"]) for i in range(1, sample["cell/num_nodes"])))
        fixed = net.eval().freeze(dict(sample)).eval()
        with single_path(net, sample), torch.no_grad():
            torch.testing.assert_close(net(x), fixed(x))
        norms = [m for m in fixed.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {m.momentum for m in norms} == {0.003}  # which NasBench101 sets after the construction
    assert max(edges) <= 5


def test_only_allowed_networks_are_sampled_and_decoded(nasbench101: Any) -> None:
    _, strategy = nasbench101
    gates = strategy._gates
    rules = Constraints.in_space(NasBench101(6, 2, 1, 5, 5).simplify())
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        rules.draw(gates, lambda gate: gate.draw_for_gradient("full", generator))
        active = {label: gate.value for label, gate in gates.items()}
        assert rules.allow(active)
        for label, gate in gates.items():
            for path in range(gate.num_candidates):
                allowed = rules.allow({**active, label: gate.candidates[path]})
                assert (path in gate.sample.paths) == allowed
    for gate in gates.values():
        gate.alpha.data = torch.randn(gate.num_candidates, generator=generator)
    gates["cell/num_nodes"].alpha.data = torch.tensor([0.0, 0.0, 0.0, 3.0])
    for label in ("cell/input2", "cell/input3", "cell/input4"):
        gates[label].alpha.data[-1] = 4.0  # all inputs: more edges than allowed
    probs = {label: gate.probs().detach() for label, gate in gates.items()}
    candidates = {label: gate.candidates for label, gate in gates.items()}
    found = ArchitectureDistribution(candidates, probs, None, rules.allow).k_most_likely(5)
    plain = ArchitectureDistribution(candidates, probs)
    every = [dict(zip(candidates, picks, strict=True)) for picks in itertools.product(*candidates.values())]
    every.sort(key=lambda of: -sum(float(probs[n][candidates[n].index(c)].log()) for n, c in of.items()))
    by_hand = list(itertools.islice((of for of in every if rules.allow(of)), 5))
    assert plain.log_likelihoods(found) == pytest.approx(plain.log_likelihoods(by_hand))
    assert not rules.allow(plain.most_likely())


def test_constraints_that_no_network_keeps_and_turns_of_all_candidates_are_refused() -> None:
    choice = nni.choice("a", ["x", "y"])
    never = Constraints((ExpressionConstraint(choice == "z", label="never"),))
    gates = make_gates({"a": choice})
    with pytest.raises(RunError, match="none of 10000 sampled networks satisfies the constraints of the space"):
        never.draw(gates, lambda gate: gate.draw_path())
    with pytest.raises(InputError, match="NasBench101 has constraints, so not every candidate can take its turn"):
        ProxylessNAS(weight_sampling="fair").mutate_model(NasBench101(6, 2, 1, 5, 5))
