"""The supernet: the paths that run, what an architecture step leaves unchanged, and all kinds of choices in NNI."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableLinear, Repeat
from torch import Tensor, nn

from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.errors import SpaceError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.strategies.nni_strategies import LatencyDARTS
from nni_proxyless.supernet.binary_gates import PathSample
from nni_proxyless.supernet.freezing import WeightFreezer
from nni_proxyless.supernet.gated import GatedInputChoice, GatedLayerChoice, GatedRepeat, decoded_state, make_gates
from nni_proxyless.supernet.pruning import free_pruned


class Scale(nn.Module):
    """Multiplication by a trainable factor, which counts its calls."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.factor


class Zoo(ModelSpace):
    """Space with all kinds of choices, also with keyword arguments, a tuple output, a shared label and nesting."""

    class Pair(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(factor))

        def forward(self, x: Tensor, *, shift: float) -> tuple[Tensor, Tensor]:
            return x * self.factor, x + shift * self.factor

    def __init__(self) -> None:
        super().__init__()
        self.pair = LayerChoice([Zoo.Pair(2.0), Zoo.Pair(3.0)], label="pair")
        self.one = LayerChoice({"a": Scale(2.0), "b": Scale(5.0)}, label="shared")
        self.other = LayerChoice({"a": Scale(0.5), "b": Scale(0.2)}, label="shared")
        inner = LayerChoice([Scale(1.5), Scale(2.5), Scale(3.5)], label="inner")
        self.nested = LayerChoice({"plain": Scale(1.0), "nested": nn.Sequential(inner)}, label="outer")
        self.inputs = InputChoice(3, 2, label="inputs")
        self.repeat = Repeat(lambda index: Scale(1.1 + index), (1, 3), label="depth")
        self.twice = Repeat(Scale(1.3), nni.choice("half", [1, 2]) * 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.pair(x, shift=0.25)
        y = self.inputs([left, right, self.nested(left)])
        return self.twice(self.repeat(self.other(self.one(y))))


@pytest.fixture
def zoo() -> tuple[Zoo, ProxylessNAS]:
    strategy = ProxylessNAS()
    return strategy.mutate_model(Zoo()), strategy


def set_paths(strategy: ProxylessNAS, choices: dict[str, Any]) -> None:
    for label, gate in strategy._gates.items():
        gate.sample = PathSample(gate.candidates.index(choices[label]))


def test_every_path_computes_what_the_frozen_model_does() -> None:
    strategy = ProxylessNAS()
    plain, space = Zoo(), Zoo()
    space.load_state_dict(plain.state_dict())
    supernet = strategy.mutate_model(space)
    x = torch.randn(4)
    candidates = {label: gate.candidates for label, gate in strategy._gates.items()}
    assert {label: len(c) for label, c in candidates.items()} == {
        "depth": 3, "half": 2, "inner": 3, "inputs": 3, "outer": 2, "pair": 2, "shared": 2,
    }  # fmt: skip
    for picks in itertools.product(*candidates.values()):
        choices = dict(zip(candidates, picks, strict=True))
        set_paths(strategy, choices)
        torch.testing.assert_close(supernet(x), plain.freeze(choices)(x))
        torch.testing.assert_close(supernet.freeze(choices)(x), plain.freeze(choices)(x))


@pytest.mark.parametrize("mode", ["two_path", "full"])
def test_architecture_gradient_of_every_choice_is_the_difference_of_its_paths(
    zoo: tuple[Zoo, ProxylessNAS], mode: Any
) -> None:
    """Compare ∂L/∂α of one layer with ∂L/∂y times the outputs of separate runs. The other layers keep their paths."""
    supernet, strategy = zoo
    x = torch.randn(4)
    for label, gate in strategy._gates.items():
        if label == "inner":
            continue  # the next test covers it, with the outer layer on the nested path
        for g in strategy._gates.values():
            g.sample = PathSample(g.num_candidates - 1)
        gate.draw_for_gradient(mode)
        supernet.zero_grad()
        (supernet(x) ** 2).sum().backward()
        losses = {}
        sample = gate.sample
        for index in sample.paths:
            gate.sample = PathSample(index)
            losses[index] = supernet(x).detach()
        y = losses[sample.active]
        q = torch.softmax(gate.alpha.detach()[list(sample.paths)], 0)
        inner = torch.stack([2 * y @ losses[i] for i in sample.paths])
        expected = torch.zeros(gate.num_candidates)
        if label not in {"shared", "pair"}:  # for all others, the network is linear in this layer's output
            expected[list(sample.paths)] = q * (inner - q @ inner)
            torch.testing.assert_close(gate.alpha.grad, expected, rtol=1e-4, atol=1e-3)
        assert float(gate.alpha.grad.abs().sum()) > 0


def test_nested_choice_gets_a_gradient_on_its_path(zoo: tuple[Zoo, ProxylessNAS]) -> None:
    supernet, strategy = zoo
    gates = strategy._gates
    gates["outer"].sample = PathSample(gates["outer"].candidates.index("nested"))
    gates["inputs"].sample = PathSample(gates["inputs"].candidates.index([1, 2]))
    gates["inner"].draw_for_gradient("full")
    supernet(torch.randn(4)).sum().backward()
    assert float(gates["inner"].alpha.grad.abs().sum()) > 0


def count_calls(space: MobileNetV2Space) -> Counter[str]:
    counts: Counter[str] = Counter()
    for choice in space.blocks:
        if isinstance(choice, GatedLayerChoice):
            for name in choice.names:
                choice[name].register_forward_hook(lambda *_a, label=choice.label: counts.update([label]))
    return counts


def test_a_weight_step_runs_one_path_and_an_architecture_step_two_or_all(tiny_spec: SpaceSpec) -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    counts = count_calls(space)
    images = torch.randn(2, 1, 8, 8)
    for gate in strategy._gates.values():
        gate.draw_path()
    space(images).sum().backward()
    assert counts == dict.fromkeys(strategy._gates, 1)
    counts.clear()
    for gate in strategy._gates.values():
        gate.draw_for_gradient("two_path")
    space(images).sum().backward()
    assert counts == dict.fromkeys(strategy._gates, 2)
    counts.clear()
    for gate in strategy._gates.values():
        gate.draw_for_gradient("full")
    space(images).sum().backward()
    assert counts == {label: gate.num_candidates for label, gate in strategy._gates.items()}


def test_inactive_weights_get_no_gradient(tiny_spec: SpaceSpec) -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    for gate in strategy._gates.values():
        gate.draw_path()
    space(torch.randn(2, 1, 8, 8)).sum().backward()
    for choice in space.blocks:
        if isinstance(choice, GatedLayerChoice):
            active = choice._gate.candidates[choice._gate.sample.active]
            for name in choice.names:
                has = [p.grad is not None for p in choice[name].parameters()]
                assert all(has) if name == active else not any(has)
            assert choice._gate.alpha.grad is None


class Counting(nn.Module):
    """Module with a buffer that each forward pass changes, like a user's own moving average."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("mode", ["two_path", "full"])
def test_frozen_weights_and_buffers_are_bit_identical(tiny_spec: SpaceSpec, mode: Any, running: bool) -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    space.extra = Counting()
    before = {k: v.clone() for k, v in space.state_dict().items()}
    freezer = WeightFreezer(space, running_statistics=running)
    for gate in strategy._gates.values():
        gate.draw_for_gradient(mode)
    with freezer.frozen():
        space.extra(space(torch.randn(4, 1, 8, 8))).pow(2).sum().backward()
    after = space.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    weights = [p for k, p in space.named_parameters() if not k.endswith("alpha")]
    assert all(p.grad is None and p.requires_grad for p in weights)
    assert all(g.alpha.grad is not None for g in strategy._gates.values())
    # Outside of an architecture step, statistics are updated again.
    space(torch.randn(4, 1, 8, 8))
    assert not torch.equal(space.state_dict()["stem.bn.running_mean"], before["stem.bn.running_mean"])


@pytest.mark.parametrize("running", [False, True])
def test_statistics_of_batch_norm_while_weights_are_frozen(tiny_spec: SpaceSpec, running: bool) -> None:
    """With frozen weights, outputs equal those of a network in training mode, or in evaluation mode if `running`."""
    strategy = ProxylessNAS()
    space = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    images = torch.randn(4, 1, 8, 8)
    for _ in range(3):  # makes the running statistics differ from those of a batch
        space(images + torch.randn_like(images))
    space.stem.bn.eval()  # the user's own mode is kept
    with WeightFreezer(space, running_statistics=running).frozen(), torch.no_grad():
        seen = space(images)
    assert not space.stem.bn.training
    assert sum(norm.training for norm in space.modules() if isinstance(norm, nn.BatchNorm2d)) > 3
    with torch.no_grad():
        expected = space.eval()(images) if running else copy.deepcopy(space)(images)
    torch.testing.assert_close(seen, expected)


def test_weights_frozen_by_the_user_stay_frozen(tiny_spec: SpaceSpec) -> None:
    space = ProxylessNAS().mutate_model(MobileNetV2Space(tiny_spec))
    space.stem.requires_grad_(False)
    with WeightFreezer(space).frozen():
        pass
    assert not any(p.requires_grad for p in space.stem.parameters())
    assert all(p.requires_grad for p in space.head.parameters())


def test_decoded_state_is_that_of_the_frozen_model(tiny_spec: SpaceSpec) -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    choices = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
    ours, nnis = decoded_state(space, choices), space.freeze(choices).state_dict()
    assert ours.keys() == nnis.keys()
    assert all(torch.equal(ours[key], nnis[key]) for key in nnis)


def test_gated_modules_replace_nnis(zoo: tuple[Zoo, ProxylessNAS]) -> None:
    supernet, _ = zoo
    assert isinstance(supernet.one, GatedLayerChoice)
    assert isinstance(supernet.inputs, GatedInputChoice)
    assert isinstance(supernet.repeat, GatedRepeat)
    assert supernet.one._gate is supernet.other._gate


def test_unsupported_choices_are_named() -> None:
    with pytest.raises(SpaceError, match=r"'rate' is a Numerical"):
        make_gates({"rate": nni.uniform("rate", 0, 1)})

    class Many(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = InputChoice(20, None, label="many")

    with pytest.raises(SpaceError, match="more than 256 subsets"):
        ProxylessNAS().mutate_model(Many())

    class Listed(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = InputChoice(3, None, reduction="concat", label="listed")

    with pytest.raises(SpaceError, match="different shapes; use sum or mean, or set n_chosen"):
        ProxylessNAS().mutate_model(Listed())

    class Doubling(MutableLinear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    for width in (lambda: 3, lambda: nni.choice("width", [3, 4])):
        with pytest.raises(SpaceError, match="module 'doubling' is a Doubling with its own forward method"):
            ProxylessNAS().mutate_model(Named(lambda _, w=width: {"doubling": Doubling(3, w())}))


class Named(ModelSpace):
    """Space whose modules are made by a function of a choice."""

    def __init__(self, make: Callable[[nn.Module], dict[str, nn.Module]]) -> None:
        super().__init__()
        choice = LayerChoice([nn.Linear(3, 3), nn.Identity()], label="c")
        for name, module in {"choice": choice, **make(choice)}.items():
            setattr(self, name, module)


@pytest.mark.parametrize("kind", [ProxylessNAS, LatencyDARTS])
def test_a_module_with_choices_has_one_name_in_each_module(kind: Any) -> None:
    """NNI replaces and freezes each child once, under its first name."""

    def twice(choice: nn.Module) -> dict[str, nn.Module]:
        block = nn.Sequential(choice, nn.ReLU())
        return {"whole": nn.Sequential(block, nn.ReLU(), block)}

    def plain(_: nn.Module) -> dict[str, nn.Module]:
        linear = nn.Linear(3, 3)
        return {"a": linear, "b": linear}

    makes: list[tuple[Callable[[nn.Module], dict[str, nn.Module]], str]] = [
        (lambda choice: {"b": choice}, "'choice' and 'b'"),
        (twice, "'whole.0' and 'whole.2'"),
    ]
    for make, names in makes:
        with pytest.raises(SpaceError, match=f"{names} are the same module with choices"):
            kind().mutate_model(Named(make))
    kind().mutate_model(Named(plain))  # modules without choices may have several names
    kind().mutate_model(Named(lambda choice: {"a": nn.Sequential(choice), "b": nn.Sequential(choice)}))


def test_an_input_choice_may_give_a_list_of_its_inputs() -> None:
    class Lists(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.inputs = InputChoice(3, 2, reduction="none", label="listed")

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.inputs([x, x * 10, x * 100])
            return first - second

    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(Lists())
    gate = strategy._gates["listed"]
    gate.sample = PathSample(2, (0, 1))
    assert gate.candidates == ([0, 1], [0, 2], [1, 2])
    y = supernet(torch.ones(1))
    assert float(y.detach()) == 10 - 100
    y.backward()
    outputs = torch.tensor([1.0 - 10, 1 - 100, 10 - 100])  # eq. 4: p_i Σ_j (δ_ij - p_j) o_j at equal probabilities
    torch.testing.assert_close(gate.alpha.grad, (outputs - outputs.mean()) / 3)


def test_paths_that_change_their_input_in_place_are_refused_in_architecture_steps() -> None:
    class InPlace(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
            self.layer = LayerChoice({"in_place": first, "plain": nn.Linear(3, 3)}, label="layer")
            self.deep = Repeat(lambda _: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)), (1, 2), label="depth")

        def forward(self, x: Tensor) -> Tensor:
            return self.deep(self.layer(x * 1.0))

    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(InPlace())
    supernet(torch.randn(2, 3)).sum().backward()  # a single path may change its input
    strategy._gates["layer"].draw_for_gradient("full")
    with pytest.raises(SpaceError, match="candidate 'in_place' of 'layer' changes its input in place"):
        supernet(torch.randn(2, 3))
    strategy._gates["layer"].sample = PathSample(1)
    strategy._gates["depth"].draw_for_gradient("full")
    with pytest.raises(SpaceError, match=r"block [01] of 'depth' changes its input in place"):
        supernet(torch.randn(2, 3))


def test_nnis_hub_space_trains_both_kinds_of_step() -> None:
    from nni.nas.hub.pytorch import ProxylessNAS as HubSpace

    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(HubSpace(num_labels=5, width_mult=0.25))
    assert len(strategy._gates) == 26  # 21 layers and 5 depths
    images = torch.randn(2, 3, 32, 32)
    for gate in strategy._gates.values():
        gate.draw_path()
    assert supernet(images).shape == (2, 5)
    for gate in strategy._gates.values():
        gate.draw_for_gradient("two_path")
    supernet(images).pow(2).sum().backward()
    assert all(strategy._gates[f"s{s}_depth"].alpha.grad is not None for s in range(2, 7))


def test_pruned_paths_are_never_drawn_and_the_others_compute_what_they_did(tiny_spec: SpaceSpec) -> None:
    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(MobileNetV2Space(tiny_spec)).eval()
    x = torch.randn(2, 1, 8, 8)
    kept = {label: gate.candidates[-1] for label, gate in strategy._gates.items()}

    def outputs() -> Tensor:
        for label, gate in strategy._gates.items():
            gate.sample = PathSample(gate.candidates.index(kept[label]), (1,))
        with torch.no_grad():
            return supernet(x)  # type: ignore[no-any-return]

    before = outputs()
    sizes = sum(p.numel() for p in supernet.parameters())
    cut = 0
    for label, gate in strategy._gates.items():
        module = next(m for m in supernet.modules() if isinstance(m, GatedLayerChoice) and m.label == label)
        cut += sum(p.numel() for p in module[gate.candidates[0]].parameters())
        gate.prune([0])
    assert free_pruned(supernet) == cut > 0
    assert sum(p.numel() for p in supernet.parameters()) == sizes - cut
    assert torch.equal(outputs(), before)
    for gate in strategy._gates.values():
        assert float(gate.probs()[0].detach()) == 0.0
        assert torch.isfinite(gate.probs()).all()
        for mode in ("two_path", "full", "reinforce"):
            for _ in range(50):
                gate.draw_for_gradient(mode)
                assert 0 not in gate.sample.paths
        gate.draw_for_gradient("full")
        assert len(gate.sample.paths) == gate.num_candidates - 1
        gate.prune(list(range(1, gate.num_candidates - 1)))
        gate.draw_for_gradient("two_path")
        assert gate.sample == PathSample(gate.num_candidates - 1)


def test_a_pruned_depth_frees_the_blocks_that_only_it_reached() -> None:
    class Deep(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = Repeat(lambda _: Scale(2.0), nni.choice("depth", [1, 2, 4]))

        def forward(self, x: Tensor) -> Tensor:
            return self.blocks(x)  # type: ignore[no-any-return]

    strategy = ProxylessNAS()
    supernet: Any = strategy.mutate_model(Deep())
    gate = strategy._gates["depth"]
    gate.prune([2])
    assert free_pruned(supernet) == 2
    gate.sample = PathSample(1)
    assert float(supernet(torch.ones(1)).detach()) == 4.0


def test_a_search_saves_no_more_for_the_backward_pass_than_training_does(tiny_spec: SpaceSpec) -> None:
    """Count saved tensors with hooks: a weight step saves as much as the network alone, a two-path step no more."""
    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(MobileNetV2Space(tiny_spec))
    choices = {label: gate.candidates[0] for label, gate in strategy._gates.items()}
    network = MobileNetV2Space(tiny_spec).freeze(choices)
    x = torch.randn(4, 1, 8, 8)

    def saved(model: Any) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(x)
        del output
        return sum(storages.values())

    alone = saved(network)
    for gate in strategy._gates.values():
        gate.sample = PathSample(0)
    assert saved(supernet) <= 1.02 * alone
    for gate in strategy._gates.values():
        gate.sample = PathSample(0, (1,))
    with WeightFreezer(supernet).frozen():
        assert saved(supernet) <= alone
