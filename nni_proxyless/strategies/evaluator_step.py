"""What a step of the evaluator returns and logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def loss_of(result: Any) -> Tensor:
    """The loss that an evaluator's `training_step` has returned.

    Raises:
        TypeError: It has returned something else.
    """
    loss = result["loss"] if isinstance(result, Mapping) else result
    if not isinstance(loss, Tensor):
        raise TypeError(f"the evaluator's training_step must return a loss tensor, got {type(loss).__name__}")
    return loss


@contextmanager
def logging_as(module: Any, log: Callable[..., None], prefix: str) -> Iterator[None]:
    """Give a prefix to what an evaluator logs, so that its architecture steps are told apart from its weight steps.

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
