"""Checks of the checkpoint of an interrupted search, or of a shared warm-up, before a search starts from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..decoding.checkpoint import CHECKPOINT_KEY
from ..errors import DamagedFileError, InputError, LatencyTableError
from ..files import results_folder
from ..latency import LatencyTable
from ..network.space_spec import SpaceSpec
from ..training.resume import is_interrupted, read_checkpoint, set_aside, usable
from .epoch_callback import STATE_KEY
from .other_tables import load_tables
from .prepared import Prepared

_log = logging.getLogger(__name__)


def resumed(prepared: Prepared, output: Path) -> Prepared | None:
    """Return the inputs of the interrupted search in a folder, with its own latency table.

    A checkpoint that cannot be used is renamed, and the log says so.

    Args:
        prepared: Inputs of the search.
        output: Folder of the results.

    Returns:
        Inputs of the interrupted search; `None` if the folder has none that can be resumed.
    """
    checkpoint, table = output / results_folder.CHECKPOINT, output / results_folder.LATENCY_TABLE
    if not is_interrupted(prepared.recipe, output, results_folder.NEEDED_BY_SEARCH):
        return None
    if not usable(checkpoint, lambda path: check_checkpoint(path, prepared.spec), "the search"):
        return None
    try:
        others = load_tables(output / results_folder.OTHER_TABLES) if prepared.other_tables else {}
        return replace(prepared, table=LatencyTable.load(table), other_tables=others)
    except LatencyTableError as reason:
        aside = set_aside(checkpoint)
        _log.warning("%s; the checkpoint is kept as %s, and the search starts over", reason, aside.name)
        return None


def check_checkpoint(path: Path, spec: SpaceSpec) -> None:
    """Check that a file is the checkpoint of a search in a space.

    Raises:
        DamagedFileError: The file is damaged, or is the checkpoint of something else.
        InputError: The file cannot be read.
    """
    state = read_checkpoint(path, STATE_KEY).get(CHECKPOINT_KEY)
    try:
        found = SpaceSpec.from_dict(state["space"]) if isinstance(state, Mapping) else None
    except (InputError, KeyError, TypeError) as reason:
        raise DamagedFileError(f"{path} does not describe the space of its search") from reason
    if found != spec:
        raise DamagedFileError(f"{path} is the checkpoint of a search in another space")
