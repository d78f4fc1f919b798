"""Modules whose further arguments keep their default values in an export."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


class OnlyGiven(nn.Module):
    """A module that is called with positional arguments only."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        return self.module(*inputs)


def only_given(module: nn.Module, count: int) -> nn.Module:
    """Return a module that PyTorch's TorchScript exporter can call with its first `count` arguments.

    The exporter gives the other arguments their default values, but turns numbers and truth values into tensors. A
    `TransformerEncoderLayer` then fails, because its `is_causal` must not be a tensor. Modules without such arguments
    are returned as they are.
    """
    further = list(inspect.signature(module.forward).parameters.values())[count:]
    plain = any(isinstance(of.default, (bool, int, float)) for of in further)
    return OnlyGiven(module).train(module.training) if plain else module
