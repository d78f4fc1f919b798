"""Refusal of choices that a supernet would not search, because they would silently always have their first value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Constraint
from nni.nas.nn.pytorch import Cell, LayerChoice, ModelSpace, MutableModule, Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from ..errors import SpaceError, UnsupportedSpaceError
from .gated import GatedModule
from .gated_values import gates_read_by
from .remade import refuse_lost_changes


def refuse_unsupported(module: nn.Module, name: str, _memo: Mapping[str, Any], _kwargs: Mapping[str, Any]) -> bool:
    """Refuse a module whose choices no other hook has handled. This is the last NNI mutation hook.

    Raises:
        UnsupportedSpaceError: The module has choices, which would otherwise always have their first value.
    """
    if isinstance(module, Cell):
        what = f"a {type(module).__name__}, a subclass of Cell"
        hint = "use Cell itself, or write the cell as LayerChoices and InputChoices"
    elif isinstance(module, MutableModule) and module.mutables and _only_constraints(module):
        what = f"a {type(module).__name__} that registers a constraint"
        hint = "register the constraint on the model space itself"
    elif isinstance(module, MutableModule) and module.mutables:
        labels = list(dict.fromkeys(str(label) for mutable in module.mutables for label in mutable.simplify()))
        what = f"a {type(module).__name__} with the choice{'s' if len(labels) > 1 else ''} {', '.join(labels)}"
        hint = "make it a ParametrizedModule, which takes the choice as an argument"
    else:
        return True
    raise UnsupportedSpaceError(
        f"module '{name}' is {what}, which is not supported: ProxylessNAS searches LayerChoice, InputChoice, Repeat, "
        f"cells and choices in the arguments of a ParametrizedModule; {hint}, or give the strategy a mutation hook "
        "that handles it"
    )


def _only_constraints(module: MutableModule) -> bool:
    return all(isinstance(mutable, Constraint) for mutable in module.mutables)


def check_space(model: nn.Module, candidates: Mapping[str, Sequence[Any]]) -> None:
    """Check that a model space can be searched: it is new, and some choice has two candidates.

    Args:
        model: Model space that is not mutated yet.
        candidates: Mapping from labels to candidates.

    Raises:
        SpaceError: The space has been searched before, there is nothing to search, a module with choices has two
            names in the module that contains it, or such a module would lose a hook, a parametrization or a tie.
    """
    if any(isinstance(module, BaseSuperNetModule) for module in model.modules()):
        raise SpaceError(
            f"this {type(model).__name__} has been searched before, which has made a supernet of it; create a new one "
            "for each search"
        )
    refuse_second_names(model)
    refuse_lost_changes(model)
    if not any(len(of) > 1 for of in candidates.values()):
        raise SpaceError(
            f"{type(model).__name__} has no choice with two candidates, so there is nothing to search; add a "
            "LayerChoice, InputChoice or Repeat with a choice of depth"
        )


def refuse_second_names(model: nn.Module) -> None:
    """Refuse modules with choices that one module contains twice: NNI neither searches nor freezes the second one."""
    for path, parent in model.named_modules():
        if isinstance(parent, (LayerChoice, Repeat)):  # they freeze their candidates and blocks one by one
            continue
        first: dict[int, str] = {}
        for name, child in parent._modules.items():
            if child is None or first.setdefault(id(child), name) == name:
                continue
            if any(isinstance(module, MutableModule) and module.mutables for module in child.modules()):
                names = [f"{path}.{part}".lstrip(".") for part in (first[id(child)], name)]
                raise SpaceError(
                    f"'{names[0]}' and '{names[1]}' are the same module with choices, and NNI would always run the "
                    "second one with its first candidates; keep it under one name and call it twice"
                )


def check_all_are_used(supernet: nn.Module, candidates: Mapping[str, Sequence[Any]]) -> None:
    """Check that some module of a supernet depends on each label with two candidates.

    Args:
        supernet: Mutated model space.
        candidates: Mapping from labels to candidates.

    Raises:
        SpaceError: No module depends on a label, which would therefore always have the same value.
    """
    used: set[str] = set()
    for module in supernet.modules():
        if isinstance(module, BaseSuperNetModule):
            read = module.own_gates() if isinstance(module, GatedModule) else gates_read_by(module)
            labels = {gate.label for gate in read} or set(map(str, module.simplify()))
            if not labels:
                return  # a module of a user's own mutation hook, which does not say what it depends on
            used |= labels
    if unused := [label for label, of in candidates.items() if label not in used and len(of) > 1]:
        raise SpaceError(
            f"no module of {type(supernet).__name__} depends on the choice '{unused[0]}' while the supernet runs, so "
            "it would always have its first value; use a LayerChoice, InputChoice or Repeat, or remove it"
        )
    refuse_own_mutables(supernet)


def refuse_own_mutables(space: nn.Module) -> None:
    """Refuse what a model space itself has registered, unless it is a constraint and NNI can build the networks.

    Raises:
        SpaceError: The space has registered a choice, or a constraint without a `freeze` method of its own.
    """
    name = type(space).__name__
    for mutable in getattr(space, "mutables", ()):
        label = getattr(mutable, "label", mutable)
        if not isinstance(mutable, Constraint):
            raise SpaceError(
                f"{name} registers the choice '{label}' with add_mutable, and its own methods would always see the "
                "first value; remove add_mutable if only modules take the choice, or move what reads it into a "
                "ParametrizedModule"
            )
        if not freezes_itself(space):
            raise SpaceError(
                f"{name} registers the constraint '{label}' with add_mutable, and NNI builds the networks of such a "
                "space only with a freeze method of its own; add 'def freeze(self, sample)' that returns "
                f"{name}(…) made inside 'with nni.nas.space.model_context(sample)'"
            )


def freezes_itself(space: nn.Module) -> bool:
    """Whether the class of a model space has a `freeze` method of its own, which may make new weights."""
    for cls in type(space).__mro__:
        if "freeze" in vars(cls) and not cls.__module__.startswith(f"{__package__}."):
            return cls not in (MutableModule, ModelSpace)
    return False
