"""Example inputs of a model space, as a user gives them: tensors, or shapes of one input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, shown
from ..latency.calls import FloatInput, with_tensors


@dataclass(frozen=True)
class ExampleInputs:
    """Inputs with which a network of the space can be called.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
        batch: Number of inputs in the batch.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    batch: int

    @classmethod
    def of(cls, inputs: Any, model: nn.Module, batch: int | None = None) -> ExampleInputs:
        """Convert a user's inputs to one form.

        Args:
            inputs: Tensor, whose first dimension is the batch; shape of one input without the batch dimension; or a
                tuple, list or dictionary of tensors or shapes for several inputs. A dictionary is passed as keyword
                arguments if the names are those of the model's `forward`, and otherwise as one argument.
            model: Model space.
            batch: Number of inputs in a batch that the backend measures; `None` for that of the tensors, or 1.

        Raises:
            InputError: The inputs have another form, the tensors have another batch, or a dictionary has a name that
                `forward` does not have although it needs several arguments.
        """
        given = [t for t in _tensors(inputs) if t.dim()]
        found = given[0].shape[0] if given else batch or 1
        if batch is not None and batch != found:
            raise InputError(
                f"the example inputs have a batch of {found}, and the backend measures a batch of {batch}; set its "
                f"batch to {found}, or give the shape of one input"
            )
        if isinstance(inputs, Mapping):
            made = {key: _example(value, found) for key, value in inputs.items()}
            names = inspect.signature(model.forward).parameters.values()
            free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in names)
            if free or set(made) <= {p.name for p in names if p.kind is not inspect.Parameter.POSITIONAL_ONLY}:
                return cls((), made, found)
            _check_one_argument(made, model)
            return cls((made,), {}, found)
        if isinstance(inputs, (tuple, list)) and inputs and not _is_shape(inputs):
            return cls(tuple(_example(value, found) for value in inputs), {}, found)
        return cls((_example(inputs, found),), {}, found)

    def tensors(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with random numbers for all floating-point inputs."""
        args, kwargs = with_tensors(
            (self.args, dict(self.kwargs)), lambda value: value.tensor() if isinstance(value, FloatInput) else value
        )
        return args, kwargs

    def single(self) -> ExampleInputs:
        """Return the first input of the batch; these inputs themselves if there is only one."""
        if self.batch == 1:
            return self

        def first(value: Any) -> Any:
            if tuple(value.shape[:1]) != (self.batch,):
                return value
            return (
                FloatInput((1, *value.shape[1:]), value.dtype) if isinstance(value, FloatInput) else value[:1].clone()
            )

        args, kwargs = with_tensors((self.args, dict(self.kwargs)), first)
        return ExampleInputs(args, kwargs, 1)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one input without the batch dimension, if there is only one tensor."""
        if len(self.args) == 1 and not self.kwargs and isinstance(self.args[0], (FloatInput, Tensor)):
            return tuple(self.args[0].shape[1:]) or None
        return None

    def __str__(self) -> str:
        described = with_tensors((self.args, dict(self.kwargs)), lambda value: list(value.shape))
        parts = [str(each) for each in described[0]] + [f"{key}={each}" for key, each in described[1].items()]
        return ", ".join(parts)


def _check_one_argument(made: Mapping[Any, Any], model: nn.Module) -> None:
    """Check that a dictionary can be the only argument of a model."""
    names = inspect.signature(model.forward).parameters.values()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    taken = [p.name for p in names if p.kind not in free]
    needed = [p.name for p in names if p.kind not in free and p.default is inspect.Parameter.empty]
    if len(needed) > 1:
        unknown = next(key for key in made if key not in taken)
        raise InputError(
            f"the example inputs have {shown(unknown)}, which {type(model).__name__}.forward does not take; it takes "
            f"{', '.join(taken)} and needs {', '.join(needed)}"
        )


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list, torch.Size))
        and bool(value)
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value)
    )


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def collect(tensor: Any) -> Any:
        found.append(tensor)
        return tensor

    with_tensors(value, collect)
    return found


def _example(value: Any, batch: int) -> Any:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return FloatInput(tuple(value.shape), value.dtype)
        return value.detach().cpu().clone()
    if _is_shape(value):
        return FloatInput((batch, *value))
    if isinstance(value, Mapping):
        return {key: _example(each, batch) for key, each in value.items()}
    if isinstance(value, (tuple, list)) and value:
        return type(value)(_example(each, batch) for each in value)
    raise InputError(
        "an example input must be a tensor or the shape of one input, such as (3, 32, 32), or a tuple, list or "
        f"dictionary of these, got {shown(value)}"
    )
