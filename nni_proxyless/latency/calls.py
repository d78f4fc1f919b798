"""A module with the inputs of one of its calls, as it was called inside a network, so that it can be run alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FloatInput:
    """Tensor of floating-point numbers, of which only the shape counts. Random numbers stand for it.

    Attributes:
        shape: Shape, with the batch dimension.
        dtype: Number format.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    def tensor(self) -> Tensor:
        """Return random numbers."""
        return torch.randn(self.shape, dtype=self.dtype)


@dataclass(frozen=True)
class Call:
    """A module and the arguments of a call.

    Attributes:
        module: Module.
        args: Positional arguments. Tensors of floating-point numbers are `FloatInput`; others, such as the indices of
            an embedding, are the tensors themselves.
        kwargs: Keyword arguments.
        name: Name of the module, for error messages.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def recorded(cls, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str = "") -> Call:
        """Create the record of a call with tensors."""

        def recorded(tensor: Tensor) -> Any:
            if tensor.is_floating_point():
                return FloatInput(tuple(tensor.shape), tensor.dtype)
            return tensor.detach().cpu().clone()

        plain, named = with_tensors((args, dict(kwargs)), recorded)
        return cls(module, plain, named, name)

    def image_shape(self, batch: int) -> tuple[int, ...] | None:
        """Return the shape of one input without the batch dimension, if the only input is a batch of floats."""
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], FloatInput):
            shape, dtype = self.args[0].shape, self.args[0].dtype
            if len(shape) > 1 and shape[0] == batch and dtype == torch.float32:
                return shape[1:]
        return None

    def shapes(self, batch: int) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of all inputs, without the dimension of the batch where it comes first."""
        shapes = [tuple(tensor.shape) for tensor in self.tensors()]
        return tuple(shape[1:] if shape[:1] == (batch,) else shape for shape in shapes)

    def tensors(self) -> list[Tensor]:
        """Return the inputs in the order in which `flat` takes them."""
        found: list[Tensor] = []

        def collect(value: Any) -> Any:
            found.append(value.tensor() if isinstance(value, FloatInput) else value)
            return value

        with_tensors((self.args, dict(self.kwargs)), collect)
        return found

    def flat(self) -> nn.Module:
        """Return a module that takes all tensors of the call as positional arguments."""
        return _Flat(self)


class _Flat(nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.module = call.module
        self._args, self._kwargs = call.args, dict(call.kwargs)

    def forward(self, *tensors: Tensor) -> Any:
        following = iter(tensors)
        args, kwargs = with_tensors((self._args, self._kwargs), lambda _: next(following))
        return self.module(*args, **kwargs)


def with_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a copy of nested tuples, lists and dictionaries whose tensors (or `FloatInput`) were changed."""
    if isinstance(value, (Tensor, FloatInput)):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(with_tensors(each, change) for each in value))
    if isinstance(value, (tuple, list)):
        return type(value)(with_tensors(each, change) for each in value)
    if isinstance(value, dict):
        return {key: with_tensors(each, change) for key, each in value.items()}
    return value
