"""NNI's `freeze` without copies of weights, for networks that are only run.

NNI copies every module that contains a choice, with all its candidates, before it replaces the choices. In a space of
ProxylessNAS, that takes most of the time of a frozen network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Mutable
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat
from torch import nn

_TABLES = frozenset(key for key, value in nn.Module().__dict__.items() if isinstance(value, (dict, set)))


def shallow_freeze(module: nn.Module, sample: Mapping[str, Any]) -> nn.Module:
    """Return the network of a sample. It shares its weights with the space, except where NNI makes new modules.

    Args:
        module: Model space, or a module of it.
        sample: NNI sample.
    """
    if isinstance(module, MutableModule):
        own = type(module).freeze
        if own is LayerChoice.freeze and isinstance(module, LayerChoice):
            module.validate(dict(sample))
            return shallow_freeze(module[module.choice.freeze(dict(sample))], sample)
        if own is Repeat.freeze and isinstance(module, Repeat):
            module.validate(dict(sample))
            depth = module.depth_choice
            count = depth.freeze(dict(sample)) if isinstance(depth, Mutable) else depth
            return nn.Sequential(*(shallow_freeze(block, sample) for block in list(module.blocks)[:count]))
        if own not in (MutableModule.freeze, ModelSpace.freeze) or module.mutables:
            frozen: nn.Module = module.freeze(dict(sample))
            return frozen
    if any(isinstance(value, MethodType) for value in module.__dict__.values()):  # bound to this module, not to a copy
        return (
            module.freeze(dict(sample)) if isinstance(module, MutableModule) else _copied(module, sample, copy.deepcopy)
        )
    return _copied(module, sample, _shallow)


def _copied(module: nn.Module, sample: Mapping[str, Any], make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Return a copy with frozen modules inside, or the module itself if there is nothing to freeze."""
    inside = {key: child for key, child in module._modules.items() if child is not None}
    frozen = {key: shallow_freeze(child, sample) for key, child in inside.items()}
    if all(frozen[key] is child for key, child in inside.items()):
        return module
    made = make(module)
    made._modules.update(frozen)
    return made


def _shallow(module: nn.Module) -> nn.Module:
    made: nn.Module = type(module).__new__(type(module))
    made.__dict__.update({key: copy.copy(of) if key in _TABLES else of for key, of in module.__dict__.items()})
    return made
