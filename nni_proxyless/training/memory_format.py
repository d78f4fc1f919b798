"""channels_last for the convolutions of any network on the CPU, where a step then takes a third less time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


class ChannelsLast:
    """The weights of a network's convolutions in channels_last. Convolutions then return images in channels_last.

    A network computes the same in each memory format, up to rounding, with one exception: `Tensor.view` fails for most
    images in channels_last. Then `revert` restores the weights.

    Args:
        model: Network; changed in place.

    Attributes:
        weights: Weights that are in channels_last now and were not before. They are the same parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        # A weight that shares its memory with others, as entangled weights do, must stay where it is.
        users = Counter(_memory(parameter) for parameter in model.parameters() if not is_lazy(parameter))
        found = {
            id(weight): weight
            for module in model.modules()
            if isinstance(module, nn.Conv2d) and (weight := module._parameters.get("weight")) is not None
            if not is_lazy(weight) and users[_memory(weight)] == 1 and weight.is_contiguous() and weight.numel() > 0
        }
        self.weights = list(found.values())
        self._lay_out(torch.channels_last)

    def revert(self) -> None:
        """Bring the weights back into their first memory format."""
        self._lay_out(torch.contiguous_format)
        self.weights = []

    def _lay_out(self, memory_format: Any) -> None:
        for weight in self.weights:
            weight.data = torch.empty_like(weight.data, memory_format=memory_format).copy_(weight.data)

    def follow(self, optimizers: Iterable[Any]) -> None:
        """Give the optimizer's state of each weight, such as its momentum, the memory layout of the weight.

        A fused optimizer assumes that both are blocks of memory in the same order.

        Args:
            optimizers: Optimizers, whose state may come from a checkpoint.
        """
        for state in (optimizer.state[w] for optimizer in optimizers for w in self.weights if w in optimizer.state):
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim == 4:
                    state[name] = torch.empty_like(value, memory_format=torch.channels_last).copy_(value)


def on_cpu(model: nn.Module) -> bool:
    """Whether all parameters of a model are on the CPU."""
    return all(parameter.device.type == "cpu" for parameter in model.parameters())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
