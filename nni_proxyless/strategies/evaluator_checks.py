"""Checks of an evaluator before a search starts, for mistakes that NNI or Lightning would ignore or fail on later."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden

from ..errors import InputError
from ..training.ranks import WAITING
from .evaluator_step import each_part
from .path_parallel import PathParallelStrategy

BATCH_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
_LOADERS = ("train_dataloader", "val_dataloader")
_ORIGINAL = "_loaders_before_the_search"


def check_evaluator(evaluator: Any) -> None:
    """Check that an evaluator is new, and check its callbacks and loaders.

    Args:
        evaluator: NNI's Lightning evaluator.

    Raises:
        InputError: The trainer has trained before, a callback belongs to the package `lightning`, or a loader has no
            batch.
    """
    trainer = evaluator.trainer
    if trainer.fit_loop.epoch_progress.current.processed:
        raise InputError(
            f"the Trainer of the evaluator has trained for {trainer.current_epoch} epochs before, and would go on "
            "after them; create a new evaluator for each search"
        )
    for callback in trainer.callbacks:
        of_lightning = any(base.__module__.split(".")[0] == "lightning" for base in type(callback).__mro__)
        if of_lightning and not isinstance(callback, Callback):
            raise InputError(
                f"callback {type(callback).__name__} comes from the package lightning, but NNI's Trainer is that of "
                "pytorch_lightning; import the callback from pytorch_lightning"
            )
    for name in ("train_dataloaders", "val_dataloaders"):
        loader = the_loader(getattr(evaluator, name, None), name)
        try:
            empty = loader is not None and len(loader) == 0
        except (TypeError, NotImplementedError):  # a loader without a length, or one whose data set has none
            continue
        if empty:
            what = "train the weights" if name == "train_dataloaders" else "train the architecture"
            raise InputError(
                f"{name} of the evaluator has no batch to {what}; give it more data, a smaller batch_size, or "
                "drop_last=False"
            )


def check_steps(evaluator: Any) -> None:
    """Check that the trainer leaves the steps to a search that takes them itself.

    Args:
        evaluator: NNI's Lightning evaluator, with the module of the search.

    Raises:
        InputError: The trainer clips or accumulates gradients.
    """
    trainer = evaluator.trainer
    if evaluator.module.automatic_optimization:
        return
    if trainer.gradient_clip_val:
        raise InputError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val}) does not clip in a search, which steps its "
            "optimizers itself; remove it (ProxylessNAS and NNI's differentiable strategies have a gradient_clip_val)"
        )
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            f"Trainer(accumulate_grad_batches={trainer.accumulate_grad_batches}) cannot be used in a search, which "
            "steps its optimizers itself; use larger batches"
        )


def the_loader(given: Any, name: str) -> Any:
    """Return the only loader of a list, or the loader itself.

    Raises:
        InputError: There are several loaders, whose batches a search could not tell apart.
    """
    if not isinstance(given, (list, tuple)):
        return given
    if len(given) != 1:
        raise InputError(f"{name} must be one loader for a search, got {len(given)}; join their data sets")
    return given[0]


def keep_datamodule(datamodule: Any) -> None:
    """Prepare a datamodule for a search: its hooks get single batches, and its own loaders are restored.

    NNI replaces the loaders by those of the search for good, so a second search would find the loaders of the first.
    Hooks of a datamodule take precedence over those of the module, and would get the batches of both loaders at once.

    Args:
        datamodule: Lightning datamodule of the evaluator; changed in place.
    """
    known = datamodule.__dict__.get(_ORIGINAL)
    if known is None:
        known = datamodule.__dict__[_ORIGINAL] = {name: datamodule.__dict__.get(name) for name in _LOADERS}
        for name in BATCH_HOOKS:
            if is_overridden(name, datamodule):
                setattr(datamodule, name, partial(_for_each_part, getattr(datamodule, name)))
    for name, own in known.items():
        if own is None:
            datamodule.__dict__.pop(name, None)
        else:
            datamodule.__dict__[name] = own


def _for_each_part(hook: Any, batch: Any, *args: Any) -> Any:
    return each_part(batch, lambda part: hook(part, *args))


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
    strategy._timeout = max(strategy._timeout, WAITING)  # the other ranks wait while rank 0 compares the finalists
    if strategy._layer_sync is not None:
        raise InputError(
            "sync_batchnorm=True cannot be used in a search on several devices, because rank 0 alone compares the "
            "finalists; remove it"
        )
