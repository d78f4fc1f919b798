"""Checks of an evaluator before a search starts: what NNI or Lightning would ignore or fail on later."""

from __future__ import annotations

from types import MethodType
from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from ..errors import InputError
from .path_parallel import PathParallelStrategy


def check_evaluator(evaluator: Any) -> None:
    """Check the callbacks and loaders of an evaluator.

    Args:
        evaluator: NNI's Lightning evaluator.

    Raises:
        InputError: A callback belongs to the package `lightning`, or a loader has no batch.
    """
    for callback in evaluator.trainer.callbacks:
        of_lightning = any(base.__module__.split(".")[0] == "lightning" for base in type(callback).__mro__)
        if of_lightning and not isinstance(callback, Callback):
            raise InputError(
                f"callback {type(callback).__name__} comes from the package lightning, but NNI's Trainer is that of "
                "pytorch_lightning; import the callback from pytorch_lightning"
            )
    for name in ("train_dataloaders", "val_dataloaders"):
        loader = getattr(evaluator, name, None)
        try:
            empty = loader is not None and len(loader) == 0
        except TypeError:  # a loader without a length, or one whose data set has none
            continue
        if empty:
            what = "train the weights" if name == "train_dataloaders" else "train the architecture"
            raise InputError(
                f"{name} of the evaluator has no batch to {what}; give it more data, a smaller batch_size, or "
                "drop_last=False"
            )


def share_paths(trainer: Any) -> None:
    """Make Lightning's DDP search with the same paths on all ranks, without torch's wrapper around the model.

    Args:
        trainer: Lightning trainer, whose strategy is changed if it is plain DDP.

    Raises:
        InputError: The trainer has another strategy for several devices, or DDP that does not start by subprocesses.
    """
    strategy = trainer.strategy
    if isinstance(strategy, (SingleDeviceStrategy, PathParallelStrategy)):
        return
    if type(strategy) is not DDPStrategy:
        raise InputError(
            f"ProxylessNAS cannot search with Trainer(strategy={type(strategy).__name__}); use strategy='ddp'"
        )
    method = getattr(strategy, "_start_method", "popen")
    if method != "popen":
        raise InputError(
            f"Trainer(strategy='ddp_{method}') leaves the result of a search in processes that end with it; use "
            "strategy='ddp'"
        )
    for name in ("configure_ddp", "training_step"):
        setattr(strategy, name, MethodType(getattr(PathParallelStrategy, name), strategy))
