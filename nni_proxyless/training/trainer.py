"""What a search and a retraining share of running Lightning: hardware, memory format, random numbers, resumption."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nni.nas.evaluator.pytorch import Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from ..errors import InputError, RecipeError
from ..files import read_mapping
from ..settings import Settings


class Hardware(Protocol):
    """The settings of a recipe that say what it is trained on."""

    @property
    def accelerator(self) -> str: ...
    @property
    def devices(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def channels_last(self) -> bool | None: ...


def check_hardware(recipe: Hardware) -> None:
    """Check that a recipe's accelerator, precision and devices are to be had here.

    Raises:
        InputError: They are not.
    """
    has_cuda = torch.cuda.is_available()
    if recipe.accelerator == "gpu" and not has_cuda:
        raise InputError("accelerator gpu, but PyTorch sees no CUDA device here; use accelerator: auto or cpu")
    if recipe.precision == "16-mixed" and (recipe.accelerator == "cpu" or not has_cuda):
        raise InputError("precision 16-mixed needs CUDA; use 32-true or bf16-mixed")
    if recipe.devices > 1 and recipe.accelerator != "cpu" and has_cuda and recipe.devices > torch.cuda.device_count():
        raise InputError(f"devices is {recipe.devices}, but there are {torch.cuda.device_count()} CUDA devices")


def uses_channels_last(recipe: Hardware) -> bool:
    """The recipe's memory format; by default channels_last on the CPU only."""
    if recipe.channels_last is not None:
        return recipe.channels_last
    return recipe.accelerator == "cpu" or not torch.cuda.is_available()


def make_trainer(recipe: Any, output: Path, steps_per_epoch: int, callback: Any, **settings: Any) -> Any:
    """Lightning's trainer, which logs to TensorBoard and leaves checkpoints to the callback.

    Args:
        recipe: Its epochs and hardware.
        output: Folder of the results; `tensorboard/` goes there.
        steps_per_epoch: Steps of an epoch.
        callback: Writes checkpoints.
        **settings: Further arguments of the trainer.
    """
    _quiet_lightning()
    return Trainer(
        max_epochs=recipe.epochs,
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        precision=recipe.precision,
        logger=TensorBoardLogger(str(output), name="tensorboard", version=""),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, steps_per_epoch),
        **settings,
    )


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Give an epoch random numbers of its own: what goes on in it sees the same whether it was interrupted or not."""
    drawn = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
    torch.manual_seed(drawn)
    np.random.seed(drawn)
    random.seed(drawn)


def is_interrupted(recipe: Settings, output: Path, needed: Iterable[str]) -> bool:
    """Whether a folder holds a run of this very recipe to go on with.

    Args:
        recipe: The recipe.
        output: The folder.
        needed: Files that it needs, beside `recipe.yml`.
    """
    if not all((output / name).is_file() for name in ("recipe.yml", *needed)):
        return False
    try:
        before = read_mapping(output / "recipe.yml", "recipe", RecipeError)
    except RecipeError:
        return False
    return bool(before == recipe.to_dict(absolute=True))


def _quiet_lightning() -> None:
    """Lightning's and NNI's notices that say nothing of this run; importing Lightning resets its level."""
    for name in ("lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("nni.nas.evaluator.pytorch.lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="pytorch_lightning")
