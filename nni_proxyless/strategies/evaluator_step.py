"""Losses and logs of the evaluator's steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError


def loss_of(result: Any) -> Tensor:
    """Return the loss from the result of an evaluator's `training_step`.

    Raises:
        TypeError: The loss is not a tensor.
    """
    loss = result["loss"] if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor):
        raise TypeError(f"the evaluator's training_step must return a loss tensor, got {type(loss).__name__}")
    return loss


def each_part(batch: Any, hook: Callable[[Any], Any]) -> Any:
    """Call a hook with the evaluator's own batches: those in a batch of the search, or a batch of the validation."""
    if isinstance(batch, dict) and batch.keys() == {"train", "val"}:
        return {key: hook(part) for key, part in batch.items()}
    return hook(batch)


def to_device_of(trainer: Any) -> Callable[[Any], Any]:
    """Return the function that prepares a batch as Lightning does: its precision (such as `64-true`) and its device.

    Args:
        trainer: Lightning trainer of the running fit.
    """
    return lambda batch: trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))


@contextmanager
def logging_as(module: Any, log: Callable[..., None], prefix: str) -> Iterator[None]:
    """Add a prefix to the names that an evaluator logs, which tells architecture steps from weight steps.

    Args:
        module: The evaluator's Lightning module.
        log: Function that logs a name and a value.
        prefix: Prefix of the names.
    """
    plain = module.log
    module.log = lambda name, *args, **kwargs: log(prefix + name, *args, **kwargs)
    try:
        yield
    finally:
        module.log = plain


def check_depends(objective: Tensor, module: Any, batch_idx: int) -> None:
    """Check that an objective depends on the architecture parameters.

    Args:
        objective: Objective of an architecture step, a scalar.
        module: Lightning module, whose trainer knows the epoch.
        batch_idx: Number of the batch, counted from 0.

    Raises:
        RunError: It has no gradient.
    """
    if not objective.requires_grad:
        raise RunError(
            f"the loss of epoch {module.trainer.current_epoch + 1}, step {batch_idx + 1} does not depend on any "
            "choice, so nothing can be learnt; check that the output of every candidate reaches the loss"
        )


def check_finite(value: Tensor, kind: str, module: Any, batch_idx: int) -> Tensor:
    """Return a scalar if it is finite.

    Args:
        value: Scalar to check.
        kind: Name of the scalar in the message, as in "loss of the weights".
        module: Lightning module, whose trainer knows the epoch.
        batch_idx: Number of the batch, counted from 0.

    Raises:
        RunError: The scalar is infinite or not a number.
    """
    if not bool(torch.isfinite(value)):
        raise RunError(
            f"the {kind} became {value.item()} in epoch {module.trainer.current_epoch + 1}, step {batch_idx + 1}; "
            "lower the learning rate or set gradient_clip_val"
        )
    return value
