"""The trial command: one search with the parameters of NNI's manager."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..recipe import Recipe
from .channel import ManagerChannel, link_tensorboard

if TYPE_CHECKING:
    from ..search import Record


def run_trial(recipe_path: Path) -> None:
    """Ask for parameters, search, report.

    Args:
        recipe_path: The recipe that the parameters override.

    Raises:
        InputError: It runs outside of NNI, or recipe and parameters are not good.
    """
    if "NNI_TRIAL_JOB_ID" not in os.environ:
        raise InputError(
            f"'trial' is the command that NNI's manager starts; by hand use: nni-proxyless search {recipe_path}"
        )
    channel = ManagerChannel()  # before torch is imported
    recipe = Recipe.load(recipe_path, channel.parameters)
    output = Path(os.environ["NNI_OUTPUT_DIR"])

    from ..search import prepare, run_search

    def report(record: Record, final: bool) -> None:
        (channel.final if final else channel.intermediate)(asdict(record))

    prepared = prepare(recipe)
    (output / "tensorboard").mkdir(parents=True, exist_ok=True)
    link_tensorboard(output)
    run_search(prepared, output, report, channel.parameters)
