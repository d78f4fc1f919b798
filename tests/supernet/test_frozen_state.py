"""Weights that a strategy exports load strictly into the frozen space, and give the supernet's outputs."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import pytest
import torch
from nni.nas.hub.pytorch import NasBench201
from nni.nas.hub.pytorch import ProxylessNAS as HubSpace
from nni.nas.hub.pytorch.shufflenet import ShuffleNetSpace
from nni.nas.nn.pytorch import (
    InputChoice,
    LayerChoice,
    ModelSpace,
    MutableConv2d,
    MutableDropout,
    MutableLinear,
    ParametrizedModule,
    Repeat,
)
from torch import Tensor, nn

from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.strategies.nni_strategies import LatencyDARTS, LatencyNniProxyless, RandomSearch
from nni_proxyless.supernet.frozen_state import frozen_state
from nni_proxyless.supernet.single_path import single_path
from tests.strategies.hub_spaces import SPACES


class Nested(ModelSpace):
    """A choice inside a repeat inside a choice, a repeat of one choice, an input choice and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        inner = Repeat(
            lambda i: LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)], label=f"in{i}"),
            (1, 3),
            label="d",
        )
        self.first = LayerChoice(
            {"deep": nn.Sequential(inner, nn.BatchNorm2d(4)), "flat": nn.Conv2d(4, 4, 1)}, label="a"
        )
        self.again = Repeat(LayerChoice([nn.Conv2d(4, 4, 1), nn.Identity()], label="same"), (0, 2), label="e")
        self.fixed = Repeat(lambda _: nn.Conv2d(4, 4, 1), 2)
        self.inputs = InputChoice(2, 1, label="i")
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("hidden", torch.tensor(3.0), persistent=False)

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        return self.fixed(self.inputs([y, self.again(y)])) * self.scale + self.hidden


def samples(space: ModelSpace, count: int) -> list[dict[str, Any]]:
    mutables = space.simplify()
    drawn = random.Random(0)
    found = []
    for _ in range(count):
        sample = {label: drawn.choice(list(mutable.grid())) for label, mutable in mutables.items()}
        found.append(sample)
    return found


def tiny() -> ModelSpace:
    return MobileNetV2Space(
        SpaceSpec.from_yaml("mobilenetv2_digits").with_changes(width_mult=0.25, input_size=16), entangled=True
    )


@pytest.mark.parametrize(
    ("make", "strategy", "shape"),
    [
        (Nested, ProxylessNAS, (4, 6, 6)),
        (Nested, LatencyNniProxyless, (4, 6, 6)),
        (Nested, LatencyDARTS, (4, 6, 6)),
        (Nested, RandomSearch, (4, 6, 6)),
        (tiny, ProxylessNAS, (1, 16, 16)),
        (lambda: HubSpace(num_labels=3, width_mult=0.25), ProxylessNAS, (3, 32, 32)),
        (lambda: NasBench201(stem_out_channels=4, num_modules_per_stack=1), ProxylessNAS, (3, 8, 8)),
        (lambda: ShuffleNetSpace(num_labels=3), ProxylessNAS, (3, 32, 32)),
    ],
)
def test_the_frozen_space_loads_it_strictly(
    make: Callable[[], ModelSpace], strategy: Callable[[], Any], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    space = make()
    drawn = samples(space, 1 if shape[0] == 3 else 3)  # NNI's hub spaces are large
    networks = [copy.deepcopy(space.freeze(sample)).eval() for sample in drawn]
    supernet = strategy().mutate_model(space).eval()
    for module in (part for model in (supernet, *networks) for part in model.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # blocks of NNI's hub lose theirs when they are frozen
    for module in supernet.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_()
    images = torch.randn(2, *shape)
    for sample, network in zip(drawn, networks, strict=True):
        network.load_state_dict(frozen_state(supernet, sample), strict=True)
        with torch.no_grad(), single_path(supernet, sample):
            torch.testing.assert_close(network(images), supernet(images))


def test_a_strategy_exports_its_own_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = ProxylessNAS()
    supernet = strategy.mutate_model(Nested())
    monkeypatch.setattr(type(strategy), "supernet", supernet)
    with torch.no_grad():
        strategy._gates["d"].alpha[2] = 5.0  # depth 3
        strategy._gates["a"].alpha[0] = 5.0  # deep
    network = Nested().freeze(strategy.decoded_choices())
    network.load_state_dict(strategy.export_state_dict(), strict=True)
    assert len(network.first[0]) == 3
    flat = {**strategy.decoded_choices(), "a": "flat"}
    assert set(strategy.export_state_dict(flat)) == set(Nested().freeze(flat).state_dict())
    assert not any(value.requires_grad for value in strategy.export_state_dict().values())


class Widths(ModelSpace):
    """Two convolutions, whose width between them is chosen."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.first = MutableConv2d(3, width, 3, padding=1)
        self.second = MutableConv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("width", [4, 8])
def test_choices_of_values_export_their_slices(width: int) -> None:
    torch.manual_seed(0)
    space = Widths()
    supernet = ProxylessNAS().mutate_model(copy.deepcopy(space))
    state = frozen_state(supernet, {"width": width})
    frozen = space.freeze({"width": width})
    frozen.load_state_dict(state, strict=True)
    images = torch.randn(2, 3, 5, 5)
    assert state["first.weight"].shape == (width, 3, 3, 3)
    with torch.no_grad(), single_path(supernet, {"width": width}):
        torch.testing.assert_close(frozen(images), supernet(images))


class Weighted(ParametrizedModule):
    """Module of a user without choices in its arguments, with a weight of its own and a choice inside."""

    def __init__(self, size: int, label: str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size))
        inside = {"wide": nn.Linear(size, size), "none": nn.Identity()}
        self.inside = nn.Identity() if label is None else LayerChoice(inside, label=label)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) * self.weight  # type: ignore[no-any-return]


class Zeroed(MutableLinear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        nn.init.zeros_(self.bias)


class OwnModules(ModelSpace):
    def __init__(self, values: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = Weighted(4), Weighted(4, "inside"), Zeroed(4, 4)
        self.choice = LayerChoice({"own": Weighted(4, "deep"), "none": nn.Identity()}, label="choice")
        self.drop = MutableDropout(nni.choice("rate", [0.1, 0.5])) if values else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.choice(self.third(self.second(self.first(x)))))  # type: ignore[no-any-return]


@pytest.mark.parametrize("values", [False, True])
def test_modules_of_the_user_keep_their_weights(values: bool) -> None:
    """NNI's `freeze` gives them new ones, and a choice of a value anywhere used to make that of the exported state."""
    torch.manual_seed(0)
    space = OwnModules(values)
    supernet: Any = ProxylessNAS().mutate_model(OwnModules(values)).eval()
    x = torch.randn(3, 4)
    for sample in samples(space, 6):
        network = space.freeze(sample).eval()
        network.load_state_dict(frozen_state(supernet, sample), strict=True)
        with torch.no_grad(), single_path(supernet, sample):
            torch.testing.assert_close(network(x), supernet(x), rtol=0, atol=0)
            frozen = supernet.freeze(dict(sample))
            torch.testing.assert_close(frozen(x), supernet(x), rtol=0, atol=0)
        assert type(frozen.first) is Weighted
        assert "freeze" not in vars(frozen.first)
    again = pickle.loads(pickle.dumps(supernet.first)).freeze({})
    assert torch.equal(again.weight, supernet.first.weight)


@pytest.mark.parametrize("name", ["MobileNetV3Space", "ProxylessNAS"])
def test_networks_of_a_searched_space_keep_attributes_that_were_set_after_construction(name: str) -> None:
    """NNI's `freeze` of a new space gives the modules of these spaces their default `eps`."""

    def eps(model: nn.Module) -> set[float]:
        return {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}

    space = SPACES[name].make()
    assert eps(space) == {1e-3}
    strategy = ProxylessNAS(seed=0)
    supernet: Any = strategy.mutate_model(space)
    assert eps(supernet.freeze(strategy.decoded_choices())) == {1e-3}
