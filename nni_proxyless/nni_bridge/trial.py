"""The trial command: one search with the parameters of NNI's manager."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import write_json
from ..recipe import Recipe
from .channel import ManagerChannel, link_tensorboard

if TYPE_CHECKING:
    from ..search import Record


_PARAMETERS = "parameters.json"


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
    output = Path(os.environ["NNI_OUTPUT_DIR"])
    if os.environ.get("LOCAL_RANK", "0") != "0":
        _help(recipe_path, output)
        return
    channel = ManagerChannel()  # before torch is imported
    recipe = Recipe.load(recipe_path, channel.parameters)
    write_json(output / _PARAMETERS, channel.parameters)

    from ..search import prepare, run_search

    def report(record: Record, number: int | None) -> None:
        if number is None:
            channel.final(record.metrics())
        else:
            channel.intermediate(record.metrics(), number)

    prepared = prepare(recipe)
    (output / "tensorboard").mkdir(parents=True, exist_ok=True)
    link_tensorboard(output)
    run_search(prepared, output, report, channel.parameters)


def _help(recipe_path: Path, output: Path) -> None:
    """What a further process of a trial on several devices does: the same search, without a line to the manager."""
    recipe = Recipe.load(recipe_path, json.loads((output / _PARAMETERS).read_text(encoding="utf-8")))

    from ..search import prepare, run_search

    run_search(prepare(recipe), output)
