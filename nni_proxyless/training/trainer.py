"""Running Lightning, for searches and retrainings: hardware, memory format, random seeds and resumption."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nni.nas.evaluator.pytorch import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ..errors import InputError
from ..files import results_folder
from .progress_callback import ProgressCallback
from .ranks import is_main_process, started_by_torchrun
from .resume import SafeCheckpoints

_log = logging.getLogger(__name__)
_BYTES_OF_A_TENSOR = 1024  # in a file, besides its content


class Hardware(Protocol):
    """The settings of a recipe that describe the hardware to train on."""

    @property
    def accelerator(self) -> str: ...
    @property
    def devices(self) -> int: ...
    @property
    def num_nodes(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def channels_last(self) -> bool | None: ...


def check_hardware(recipe: Hardware) -> None:
    """Check that this machine has the accelerator, precision and number of devices that a recipe asks for.

    Raises:
        InputError: One of them is not available here.
    """
    has_cuda = torch.cuda.is_available()
    if recipe.accelerator == "gpu" and not has_cuda:
        raise InputError("accelerator gpu, but PyTorch sees no CUDA device here; use accelerator: auto or cpu")
    if recipe.precision == "16-mixed" and (recipe.accelerator == "cpu" or not has_cuda):
        raise InputError("precision 16-mixed needs CUDA; use 32-true or bf16-mixed")
    if recipe.devices > 1 and recipe.accelerator != "cpu" and has_cuda and recipe.devices > torch.cuda.device_count():
        raise InputError(f"devices is {recipe.devices}, but there are {torch.cuda.device_count()} CUDA devices")


def use_threads(threads: int | None) -> None:
    """Set the number of threads that torch trains with; `None` keeps its own choice.

    Raises:
        InputError: torch does not take this number.
    """
    if threads is None:
        return
    try:
        torch.set_num_threads(threads)
    except (RuntimeError, ValueError, OverflowError) as reason:
        raise InputError(f"threads must be a number that torch accepts, got {threads}: {reason}") from reason


def uses_channels_last(recipe: Hardware) -> bool:
    """Whether a recipe trains in channels_last. By default, it does so on the CPU only."""
    if recipe.channels_last is not None:
        return recipe.channels_last
    return recipe.accelerator == "cpu" or not torch.cuda.is_available()


def make_trainer(recipe: Any, output: Path | None, steps_per_epoch: int, callback: Any, **settings: Any) -> Any:
    """Create a Lightning trainer that logs to TensorBoard and leaves checkpoints to the callback.

    Args:
        recipe: Recipe that sets the number of epochs and the hardware.
        output: Folder of the results, in which `tensorboard/` is created; `None` for a trainer that writes nothing
            and shows no progress.
        steps_per_epoch: Number of steps of an epoch.
        callback: Callback that writes the checkpoints.
        **settings: Further arguments of the trainer.
    """
    quiet_lightning()
    shown = [ProgressCallback(recipe.epochs)] if output is not None and is_main_process() else []
    rank_zero_only.rank = 0 if is_main_process() else rank_zero_only.rank  # Lightning took it from the environment
    return Trainer(
        max_epochs=recipe.epochs,
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        precision=recipe.precision,
        logger=output is not None and TensorBoardLogger(str(output), name=results_folder.TENSORBOARD, version=""),
        callbacks=[callback, *shown],
        enable_checkpointing=False,
        plugins=[SafeCheckpoints(), TorchElasticEnvironment() if started_by_torchrun() else LightningEnvironment()],
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, steps_per_epoch),
        **settings,
    )


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed all random number generators for an epoch.

    So an epoch sees the same random numbers whether or not the run was interrupted before it.
    """
    drawn = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
    torch.manual_seed(drawn)
    np.random.seed(drawn)
    random.seed(drawn)


def training_bytes(module: Any) -> int:
    """Estimate the size of a checkpoint in bytes: the weights, their momentum, and their average."""
    return 3 * sum(p.numel() * p.element_size() + _BYTES_OF_A_TENSOR for p in map(torch.as_tensor, module.parameters()))


@contextmanager
def helpers_ended(trainer: Any) -> Iterator[None]:
    """Context manager that ends the processes which Lightning has started for other devices, if this one fails."""
    try:
        yield
    except BaseException:
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.terminate()
        raise


def quiet_lightning() -> None:
    """Silence notices of Lightning and NNI that do not concern this run.

    This must be called after Lightning is imported, because the import resets the level of Lightning's logger.
    """
    if not _log.isEnabledFor(logging.DEBUG):  # as with `--verbose`
        for name in ("lightning_fabric", "pytorch_lightning"):
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("nni.nas.evaluator.pytorch.lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="pytorch_lightning")
    # Each epoch is validated by a callback, with the averaged weights.
    warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no `val_dataloader`")
