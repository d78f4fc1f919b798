"""The weights of one architecture of a supernet, under the names that NNI's frozen model space gives them.

This works for the supernets of all strategies and for any model space of LayerChoice, InputChoice and Repeat, nested as
NNI allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Mutable
from nni.nas.nn.pytorch import InputChoice, LayerChoice, Repeat
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedLayer
from torch import Tensor, nn

from ..errors import SpaceError
from .gated_values import ValueModule
from .unsupported import freezes_itself


def frozen_state(supernet: nn.Module, sample: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of one architecture, which `space.freeze(sample)` of its model space loads strictly.

    Args:
        supernet: Mutated model space.
        sample: NNI sample, a mapping from labels to candidates.

    Returns:
        Copies of the supernet's weights and buffers on the paths that were chosen, on the CPU.

    Raises:
        SpaceError: A module of the supernet is not a LayerChoice, InputChoice or Repeat.
    """
    if any(isinstance(part, ValueModule) for part in supernet.modules()):  # its `freeze` keeps the weights
        space: Any = supernet
        frozen: nn.Module = space.freeze(dict(sample))
        return {key: value.detach().cpu().clone() for key, value in frozen.state_dict().items()}
    return {key: value.detach().cpu().clone() for key, value in _tensors(supernet, "", "", sample)}


def _tensors(module: nn.Module, name: str, frozen: str, sample: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield names and values of the tensors of a module.

    Args:
        module: Part of the supernet.
        name: Its name in the supernet, for messages.
        frozen: Prefix of the names of its tensors in the frozen space.
        sample: NNI sample.
    """
    if isinstance(module, LayerChoice):
        chosen = sample[module.label]
        yield from _tensors(module[chosen], f"{name}.{chosen}", frozen, sample)
    elif isinstance(module, Repeat):
        depth = module.depth_choice.freeze(dict(sample)) if isinstance(module.depth_choice, Mutable) else None
        for number, block in enumerate(list(module.blocks)[:depth]):
            # NNI's Proxyless makes a choice between a block and an identity of each optional block.
            own = isinstance(block, ProxylessMixedLayer) and block.label not in sample
            yield from _tensors(block["1"] if own else block, f"{name}.{number}", f"{frozen}{number}.", sample)
    elif isinstance(module, InputChoice):
        return
    elif isinstance(module, BaseSuperNetModule):
        raise SpaceError(
            f"'{name}' is a {type(module).__name__}, whose weights cannot be taken out of the supernet; only those of "
            "LayerChoice, InputChoice and Repeat can"
        )
    else:
        left_out = module._non_persistent_buffers_set
        for key, value in (*module._parameters.items(), *module._buffers.items()):
            if value is not None and key not in left_out:
                yield frozen + key, value
        for key, child in module._modules.items():
            if child is not None:
                yield from _tensors(child, f"{name}.{key}".lstrip("."), f"{frozen}{key}.", sample)


class _RemadeWithWeights(nn.Module):
    """Added to the class of a model space with a `freeze` method of its own, which may make a new network."""

    _class_that_freezes: type[nn.Module]

    def freeze(self, sample: dict[str, Any]) -> Any:
        kind: type[nn.Module] = type(self)
        network = super().freeze(sample)  # type: ignore[misc]
        made_anew = network.__dict__.pop("_class_that_freezes", None) is None
        if type(network) is kind:
            network.__class__ = self._class_that_freezes
        if not made_anew:
            return network
        weights = recursive_freeze(self, sample, include_root=False)[0].state_dict()
        try:
            network.load_state_dict(weights)
        except RuntimeError as reason:
            told = " ".join(str(reason).split())[:200]
            raise SpaceError(
                f"{type(network).__name__}.freeze makes a network that cannot take the supernet's weights: {told}"
            ) from reason
        return network.train(self.training)


def remake_with_weights(supernet: nn.Module) -> None:
    """Let the networks of a space with a `freeze` method of its own have the weights of its supernet.

    Args:
        supernet: Mutated model space; changed in place. Spaces with NNI's `freeze` are left unchanged.
    """
    if freezes_itself(supernet):
        cls = type(supernet)
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        supernet.__dict__["_class_that_freezes"] = cls
        supernet.__class__ = type(cls.__name__, (_RemadeWithWeights, cls), names)
