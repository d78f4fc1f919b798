"""Refusal of choices that a supernet would not search: they would always have their first value, without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.nas.nn.pytorch import Cell, MutableModule
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from ..errors import SpaceError, UnsupportedSpaceError
from .gated import Gate, GatedModule


def refuse_unsupported(module: nn.Module, name: str, _memo: Mapping[str, Any], _kwargs: Mapping[str, Any]) -> bool:
    """Refuse a module whose choices no other hook has handled (NNI mutation hook; the last one).

    Raises:
        UnsupportedSpaceError: The module has choices, which would otherwise always have their first value.
    """
    if isinstance(module, Cell):
        what = f"a Cell ({', '.join(sorted(map(str, module.simplify()))[:3]) or 'without labels'}, …)"
        hint = "write the cell as LayerChoices and InputChoices"
    elif isinstance(module, MutableModule) and module.mutables:
        labels = list(dict.fromkeys(str(label) for mutable in module.mutables for label in mutable.simplify()))
        what = f"a {type(module).__name__} with the choice{'s' if len(labels) > 1 else ''} {', '.join(labels)}"
        hint = "make it a LayerChoice with one module for each value"
    else:
        return True
    raise UnsupportedSpaceError(
        f"module '{name}' is {what}, which is not supported: ProxylessNAS searches LayerChoice, InputChoice and Repeat "
        f"only; {hint}, or give the strategy a mutation hook that handles it"
    )


def check_all_are_used(supernet: nn.Module, gates_by_label: Mapping[str, Gate]) -> None:
    """Check that each gate decides for some module of a supernet, and that there is something to search.

    Args:
        supernet: Mutated model space.
        gates_by_label: All gates by label.

    Raises:
        SpaceError: No layer has two candidates, or no module depends on a label with two values.
    """
    if not any(gate.num_candidates > 1 for gate in gates_by_label.values()):
        raise SpaceError(
            f"{type(supernet).__name__} has no choice with two candidates, so there is nothing to search; add a "
            "LayerChoice, InputChoice or Repeat with a choice of depth"
        )
    used = {
        label for module in supernet.modules() if isinstance(module, BaseSuperNetModule) for label in _labels_of(module)
    }
    if unused := [label for label, gate in gates_by_label.items() if label not in used and gate.num_candidates > 1]:
        raise SpaceError(
            f"no module of {type(supernet).__name__} depends on the choice '{unused[0]}' while the supernet runs, so "
            "it would always have its first value; use a LayerChoice, InputChoice or Repeat, or remove it"
        )


def _labels_of(module: BaseSuperNetModule) -> set[str]:
    return {module._gate.label} if isinstance(module, GatedModule) else {str(label) for label in module.simplify()}
