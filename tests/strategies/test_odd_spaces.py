"""Odd model spaces: they are searched exactly, or refused in one line that says what to change."""

from __future__ import annotations

from typing import Any

import nni
import pytest
import torch
from nni.mutable import ExpressionConstraint
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear, MutableModule, ParametrizedModule
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import SpaceError
from nni_proxyless.latency import make_backend
from nni_proxyless.nni_spaces.space_latency import measure_model_space
from nni_proxyless.strategies.nni_strategies import LatencyDARTS, RandomSearch
from nni_proxyless.supernet.single_path import single_path


class TwoWidths(ModelSpace):
    """Two layers of chosen widths."""

    def __init__(self) -> None:
        super().__init__()
        a, b = nni.choice("a", [4, 8]), nni.choice("b", [4, 8])
        self.first, self.second, self.last = MutableLinear(6, a), MutableLinear(a, b), MutableLinear(b, 2)
        self.own(a, b)

    def own(self, _a: Any, _b: Any) -> None:
        """Register what the space itself has."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)))  # type: ignore[no-any-return]


class Ruled(TwoWidths):
    def own(self, a: Any, b: Any) -> None:
        self.add_mutable(ExpressionConstraint(a + b <= 12, label="rule"))


class RuledAndFrozen(Ruled):
    """A space with a constraint, and with the `freeze` method that NNI asks for."""

    def freeze(self, sample: dict[str, Any]) -> Any:
        with nni.nas.space.model_context(sample):
            return type(self)()


class Other(RuledAndFrozen):
    def freeze(self, sample: dict[str, Any]) -> Any:
        return TwoWidths().freeze(dict.fromkeys(sample, 8))


class Reading(TwoWidths):
    def own(self, a: Any, _b: Any) -> None:
        self.add_mutable(a)


class Inside(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.part = Part()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)  # type: ignore[no-any-return]


class Part(MutableModule):
    def __init__(self) -> None:
        super().__init__()
        a = nni.choice("a", [4, 8])
        self.first = MutableLinear(6, a)
        self.add_mutable(ExpressionConstraint(a <= 4, label="rule"))


class SameLabel(TwoWidths):
    def own(self, _a: Any, _b: Any) -> None:
        self.other = MutableLinear(nni.choice("b", [4, 8, 16]), 2)


def test_networks_of_a_space_with_its_own_freeze_method_have_the_weights_of_the_supernet() -> None:
    space = RuledAndFrozen()
    strategy = ProxylessNAS(seed=0)
    supernet = strategy.mutate_model(space).eval()
    sample = {"a": 4, "b": 8}
    x = torch.randn(3, 6)
    with single_path(supernet, sample), torch.no_grad():
        expected = supernet(x)
    frozen: Any = space.freeze(sample)
    torch.testing.assert_close(frozen(x), expected)
    assert type(frozen) is RuledAndFrozen
    assert frozen.first.out_features == 4
    assert strategy._constraints.allow(sample)
    assert not strategy._constraints.allow({"a": 8, "b": 8})


def test_a_freeze_method_that_makes_another_network_is_refused() -> None:
    space = Other()
    ProxylessNAS(seed=0).mutate_model(space)
    with pytest.raises(SpaceError, match=r"TwoWidths.freeze makes a network that cannot take the supernet's weights"):
        space.freeze({"a": 4, "b": 8})


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        (
            ProxylessNAS,
            Ruled,
            "Ruled registers the constraint 'rule' with add_mutable, and NNI .* a freeze method",
        ),
        (ProxylessNAS, Reading, "Reading registers the choice 'a' with add_mutable, and .*; remove add_mutable"),
        (ProxylessNAS, Inside, "'part' is a Part that registers a constraint, .* constraint on the model space itself"),
        (ProxylessNAS, SameLabel, r"two choices of SameLabel have the label 'b', but one has \[4, 8\] and .* 16\]"),
        (LatencyDARTS, RuledAndFrozen, "has the constraint 'rule', which LatencyDARTS does not keep; use ProxylessNAS"),
        (LatencyDARTS, Reading, "Reading registers the choice 'a' with add_mutable"),
        (RandomSearch, SameLabel, "two choices of SameLabel have the label 'b'"),
    ],
)
def test_what_nni_could_not_build_is_refused_before_the_search(kind: Any, make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as raised:
        kind().mutate_model(make())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("make", "message"), [(Ruled, "NNI cannot build the network"), (SameLabel, "the label 'b'")])
def test_it_is_not_measured_either(make: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as raised:
        measure_model_space(make(), (6,), make_backend("params"))
    assert "\n" not in str(raised.value)


class Activation(ParametrizedModule):
    """A linear layer, and an activation function if there is one."""

    def __init__(self, kind: str | None, width: int) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(6, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if self.kind is None else getattr(torch, self.kind)(y)  # type: ignore[no-any-return]


class Activations(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        self.first, self.last = Activation(nni.choice("kind", [None, "relu"]), width), MutableLinear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))  # type: ignore[no-any-return]


def test_none_is_a_candidate_like_any_other() -> None:
    table = measure_model_space(Activations(), (6,), make_backend("flops"))
    costs = table.own_costs()
    assert costs.of({"kind": "None", "width": "4"}) == costs.of({"kind": None, "width": 4}) == 6 * 4 + 4 * 2
    strategy = ProxylessNAS(counts=table, budgets={"multiply_adds": 40}, seed=0)
    strategy.mutate_model(Activations())
    assert strategy.decoded_choices()["width"] == 4


class Inner(ParametrizedModule):
    """A linear layer, with what its own `__init__` adds to it."""

    def __init__(self, width: int, kind: str = "") -> None:
        super().__init__()
        self.linear, self.kind = nn.Linear(8, width), kind
        if kind == "norm":
            parametrizations.weight_norm(self.linear)
        if kind == "hook":
            self.linear.register_forward_hook(_double)
        if kind == "tie":
            self.other = nn.Linear(8, width)
            self.other.weight = self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


def _double(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


class Changed(ModelSpace):
    """Modules that are made anew for each network, and what is changed after their construction."""

    def __init__(self, change: Any, kind: str = "") -> None:
        super().__init__()
        width = nni.choice("width", [8, 16])
        self.plain, self.fixed, self.own = nn.Linear(8, 8), MutableLinear(8, 8), Inner(8)
        self.choice = LayerChoice([nn.Linear(8, 8), nn.Identity()], label="choice")
        self.wide, self.inner, self.last = MutableLinear(8, width), Inner(width, kind), MutableLinear(width, 2)
        change(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.own(self.fixed(self.plain(self.choice(x))))
        return self.last(self.wide(x) + self.inner(x))  # type: ignore[no-any-return]


def _tie(a: nn.Module, b: nn.Module) -> None:
    a.weight = b.weight


def _shared(space: Any) -> None:
    space.wide = Around(space.wide)
    space.other = Around(space.wide.inner)


_LOST = [
    (lambda s: _tie(s.wide, s.inner.linear), "'wide.weight' and 'inner.linear.weight' are the same parameter"),
    (lambda s: _tie(s.plain, s.wide), "'plain.weight' and 'wide.weight' are .* for the module 'wide'"),
    (lambda s: _tie(s.plain, s.own.linear), "'plain.weight' and 'own.linear.weight' are .* for the module 'own'"),
    (_shared, "'wide.inner.weight' and 'other.inner.weight' are the same parameter"),
    (lambda s: s.wide.register_forward_hook(_double), "'wide' is a MutableLinear with choices .* and a forward hook,"),
    (lambda s: s.wide.register_forward_pre_hook(print), "and a forward pre-hook, which is not supported"),
    (lambda s: s.wide.register_full_backward_hook(print), "and a backward hook, which is not supported"),
    (lambda s: s.wide.register_full_backward_pre_hook(print), "and a backward pre-hook, which is not supported"),
    (lambda s: s.wide.weight.register_hook(print), "and a hook of its parameter weight, which is not supported"),
    (lambda s: s.inner.linear.register_forward_hook(_double), "a forward hook on 'linear' inside it, which"),
    (lambda s: s.choice.register_forward_hook(_double), "module 'choice' is a LayerChoice with a forward hook"),
    (lambda s: weight_norm(s.wide), r"and WeightNorm \(a forward pre-hook\), which is not supported"),
    (lambda s: parametrizations.weight_norm(s.wide), "'wide' is .* and a parametrization of its weight, which"),
    (lambda s: parametrizations.orthogonal(s.inner.linear), "a parametrization of its weight on 'linear' inside it"),
]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("change", "message"), _LOST)
def test_what_new_modules_would_lose_is_refused(change: Any, message: str) -> None:
    for refused in (
        lambda: ProxylessNAS().mutate_model(Changed(change)),
        lambda: RandomSearch().mutate_model(Changed(change)),
        lambda: measure_model_space(Changed(change), (8,), make_backend("params")),
    ):
        with pytest.raises(SpaceError, match=message) as raised:
            refused()
        assert "\n" not in str(raised.value)


def test_a_tie_inside_a_module_with_choices_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"'inner' is a Inner with .* a parameter that has two names inside"):
        ProxylessNAS().mutate_model(Changed(lambda _: None, "tie"))


def _allowed(space: Any) -> None:
    _tie(space.plain, space.fixed)
    space.plain.register_forward_hook(_double)
    space.fixed.register_forward_hook(_double)
    space.own.register_forward_hook(_double)


@pytest.mark.parametrize("kind", ["norm", "hook"])
def test_networks_keep_everything_that_is_allowed(kind: str) -> None:
    space = Changed(_allowed, kind)
    supernet = ProxylessNAS(seed=0).mutate_model(space).eval()
    x = torch.randn(3, 8)
    for width in (8, 16):
        sample = {"width": width, "choice": 0}
        with single_path(supernet, sample), torch.no_grad():
            expected = supernet(x)
        network: Any = space.freeze(sample)
        torch.testing.assert_close(network(x), expected)
        assert network.plain.weight is network.fixed.weight
        assert all(len(part._forward_hooks) == 1 for part in (network.plain, network.fixed, network.own))
        assert len(network.inner.linear._forward_hooks) == (kind == "hook")
        assert hasattr(network.inner.linear, "parametrizations") == (kind == "norm")
