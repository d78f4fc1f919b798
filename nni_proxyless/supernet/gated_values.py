"""Gated versions of NNI's modules with choices in their arguments, and of everything else that reads a value.

A choice of a value has one gate for its label, like every other choice. The modules that depend on it take the value of
the gate's current path and use a slice of shared weights (`sliced.py`). The gate's paths are compared where their
outputs can be exchanged: at the end of the region that contains all of these modules (`regions.py`).
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Mutable, MutableExpression
from nni.nas.nn.pytorch import ParametrizedModule, Repeat
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation, MixedOperationSamplingPolicy
from nni.nas.space import model_context
from torch import nn

from ..errors import SpaceError, UnsupportedSpaceError
from .gate import Gate, UnlikePathsError
from .gated import GatedModule
from .sliced import SlicedModule

MAX_COMBINATIONS = 20_000


class ValueModule(GatedModule):
    """Module that reads the values of gates, but runs no paths itself."""

    _read: tuple[Gate, ...]

    def _reads(self, gates: Sequence[Gate]) -> None:
        self._read = tuple(gates)
        self._gates = nn.ModuleList(gates)  # so that architecture parameters move between devices with the model

    def own_gates(self) -> tuple[Gate, ...]:
        return self._read

    def check_inside(self) -> None:
        """Check that this module runs inside the regions of its gates, while all paths are checked.

        Raises:
            UnlikePathsError: It runs outside of a region, so the gate's other paths could not be compared.
        """
        for gate in self._read:
            if gate.probing and gate.running is None and len(gate.kept) > 1:
                raise UnlikePathsError(
                    f"choice '{gate.label}': a module that depends on it does not run inside the forward method of the "
                    "smallest module that contains all of them; call the model, not its parts",
                    gate,
                    self,
                )

    def values(self) -> dict[str, Any]:
        """Return the value of the current path of each gate, by label."""
        return {gate.label: gate.value for gate in self._read}


class GatedValue(ValueModule):
    """ParametrizedModule, such as MutableConv2d, with choices in its arguments.

    Args:
        module: Module of NNI or of the user, with choices in its arguments.
        name: Path of the module in the model, for messages.
        gates: Gates of the choices.

    Raises:
        SpaceError: The choices have too many combinations, or a combination cannot be built.
    """

    def __init__(self, module: ParametrizedModule, name: str, gates: Sequence[Gate]) -> None:
        super().__init__()
        self._reads(gates)
        for mutable in module.mutables:
            self.add_mutable(mutable)
        self._kind = type(module)
        self._arguments = (tuple(module.trace_args), dict(module.trace_kwargs))
        count = math.prod(gate.num_candidates for gate in gates)
        if count > MAX_COMBINATIONS:
            raise SpaceError(
                f"module '{name}' depends on {len(gates)} choices with {count} combinations, more than "
                f"{MAX_COMBINATIONS}; let it depend on fewer choices"
            )
        # Combinations that give the same arguments are one size.
        self._sizes: dict[tuple[int, ...], int] = {}
        self._samples: list[dict[str, Any]] = []
        known: dict[str, int] = {}
        for paths in itertools.product(*(range(gate.num_candidates) for gate in gates)):
            sample = {gate.label: gate.candidates[i] for gate, i in zip(gates, paths, strict=True)}
            described = repr(_frozen(self._arguments, sample))
            if described not in known:
                known[described] = len(self._samples)
                self._samples.append(sample)
            self._sizes[paths] = known[described]
        try:
            self.sliced = SlicedModule(module, range(len(self._samples)), self._build)
        except (RuntimeError, ValueError, TypeError) as reason:
            raise SpaceError(
                f"module '{name}' ({self._kind.__name__}) cannot be built with every combination of its choices "
                f"{', '.join(gate.label for gate in gates)}: {str(reason)[:200]}"
            ) from reason

    def _build(self, size: int) -> nn.Module:
        sample = self._samples[size]
        args, kwargs = _frozen(self._arguments, sample)
        bound = self._kind._bound_type
        with model_context(sample):
            built: nn.Module = (bound or self._kind)(*args, **kwargs)
        return built

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.check_inside()
        return self.sliced(self._sizes[tuple(gate.current for gate in self._read)], *args, **kwargs)

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Return a plain module with the chosen arguments and copies of its slices of the weights."""
        self.validate(sample)
        paths = tuple(gate.candidates.index(sample[gate.label]) for gate in self._read)
        return self.sliced.frozen(self._sizes[paths])


def _frozen(arguments: tuple[Sequence[Any], Mapping[str, Any]], sample: Mapping[str, Any]) -> tuple[Any, Any]:
    """Evaluate the choices in arguments."""

    def value(argument: Any) -> Any:
        if isinstance(argument, MutableExpression):
            return argument.evaluate(dict(sample))
        return argument.freeze(dict(sample)) if isinstance(argument, Mutable) else argument

    args, kwargs = arguments
    return tuple(value(a) for a in args), {key: value(a) for key, a in kwargs.items()}


class ValueRepeat(Repeat, ValueModule):
    """Repeat whose depth is an expression of several choices, or a choice that other modules read as well."""

    def __init__(self, repeat: Repeat, gates: Sequence[Gate]) -> None:
        super().__init__(list(repeat.blocks), repeat.depth_choice)
        self._reads(gates)

    def forward(self, x: Any) -> Any:
        self.check_inside()
        depth = self.depth_choice.evaluate(self.values())
        for block in list(self.blocks)[:depth]:
            x = block(x)
        return x


class GatedPolicy(MixedOperationSamplingPolicy):
    """Lets an operation mixer of NNI, of a space or of the user take the values of the gates.

    A space of NNI's hub brings such mixers for its own modules, and users may give theirs as mutation hooks.
    """

    def __init__(self, operation: MixedOperation, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]) -> None:
        ValueModule._reads(operation, [memo[str(label)] for label in operation.simplify()])

    def resample(self, operation: MixedOperation, memo: dict[str, Any]) -> dict[str, Any]:
        return ValueModule.resample(_Reader(operation._read), memo)

    def export(self, operation: MixedOperation, memo: dict[str, Any]) -> dict[str, Any]:
        return ValueModule.export(_Reader(operation._read), memo)

    def export_probs(self, operation: MixedOperation, memo: dict[str, Any]) -> dict[str, Any]:
        return ValueModule.export_probs(_Reader(operation._read), memo)

    def forward_argument(self, operation: MixedOperation, name: str) -> Any:
        if name not in operation.mutable_arguments:
            return operation.init_arguments[name]
        return operation.mutable_arguments[name].evaluate({gate.label: gate.value for gate in operation._read})


class _Reader(ValueModule):
    """Gates of an operation mixer, with NNI's interface."""

    def __init__(self, gates: Sequence[Gate]) -> None:
        super().__init__()
        self._reads(gates)


def gates_read_by(module: nn.Module) -> tuple[Gate, ...]:
    """Return the gates whose values a module reads without running their paths itself."""
    if isinstance(module, ValueModule):
        return module._read
    if isinstance(module, MixedOperation) and isinstance(getattr(module, "sampling_policy", None), GatedPolicy):
        read: tuple[Gate, ...] = module._read
        return read
    return ()


def keep_own_weights(module: ParametrizedModule) -> None:
    """Let a module without choices in its arguments keep its weights when the supernet is frozen.

    NNI's `freeze` would replace it by a new module with new weights. A module such as MutableConv2d becomes the plain
    module of torch that it stands for, and a module of the user freezes what is inside it.
    """
    if becomes_plain(module):
        for name in ("trace_args", "trace_kwargs", "_mutables"):
            module.__dict__.pop(name, None)
        module.__class__ = type(module)._bound_type
    else:
        module.__dict__["freeze"] = partial(_frozen_inside, module)  # which can be copied and pickled


def becomes_plain(module: ParametrizedModule) -> bool:
    """Whether a module without choices in its arguments can become the plain module of torch, such as Conv2d."""
    kind, bound = type(module), type(module)._bound_type
    return bound is not None and kind.__init__ is not bound.__init__ and kind.__bases__[-1] is bound


def _frozen_inside(module: nn.Module, sample: dict[str, Any]) -> nn.Module:
    """Return a module whose choices inside are frozen, with the weights that it has."""
    frozen: nn.Module = recursive_freeze(module, sample, include_root=False)[0]
    frozen = copy.deepcopy(module) if frozen is module else frozen
    del frozen.__dict__["freeze"]
    return frozen


def refuse_own_forward(module: ParametrizedModule, name: str) -> None:
    """Refuse a subclass of a module such as MutableConv2d whose own `forward` NNI's networks do not have.

    Raises:
        UnsupportedSpaceError: It has one.
    """
    bound = type(module)._bound_type
    if bound is not None and type(module).forward is not bound.forward:
        raise UnsupportedSpaceError(
            f"module '{name}' is a {type(module).__name__} with its own forward method, but NNI's networks have a "
            f"plain {bound.__name__} in its place; derive it from ParametrizedModule, and let it contain the "
            f"{bound.__name__}"
        )


def mutate_value(
    module: nn.Module, name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace modules with choices in their arguments (NNI mutation hook).

    Raises:
        SpaceError: A module with choices in its arguments contains further choices or has too many combinations, or the
            class of a module is one that NNI's networks do not have.
    """
    if isinstance(module, BaseSuperNetModule):
        return None
    if isinstance(module, Repeat) and isinstance(module.depth_choice, Mutable):
        labels = [str(label) for label in module.depth_choice.simplify()]
        return ValueRepeat(module, [memo[label] for label in labels]) if len(labels) > 1 else None
    if not isinstance(module, ParametrizedModule):
        return None
    refuse_own_forward(module, name)
    if not module.mutables:
        keep_own_weights(module)
        return None
    inside = next(iter(module.mutable_descendants()), None)
    if inside is not None and inside.simplify():
        raise UnsupportedSpaceError(
            f"module '{name}' is a {type(module).__name__} with choices in its arguments and further choices inside, "
            "which is not supported; put the inner choices beside it, not into it"
        )
    if len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters())):
        raise UnsupportedSpaceError(
            f"module '{name}' is a {type(module).__name__} with choices in its arguments and a parameter that has two "
            "names inside, which is not supported; give its parts their own parameters, or call one part twice"
        )
    labels = list(dict.fromkeys(str(label) for mutable in module.mutables for label in mutable.simplify()))
    return GatedValue(module, name, [memo[label] for label in labels])
