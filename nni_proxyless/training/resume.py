"""Resuming an interrupted training: which folders can be resumed, and what happens to a checkpoint that cannot."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins import TorchCheckpointIO

from ..errors import DamagedFileError, InputError, ProxylessError, RecipeError, RunError
from ..files import results_folder
from ..files.settings import Settings
from ..network.torch_file import read_torch_file
from ..process_memory import is_out_of_memory
from .ranks import is_main_process

_log = logging.getLogger(__name__)
GOES_ON = "resuming where the %s in %s was interrupted"
HAS_FINISHED = "the %s in %s has already finished; only its last results are made again"
_REPLACED = "the results in %s are replaced when the first epoch ends, because %s"
_PARTS = ("callbacks", "epoch", "global_step", "loops", "lr_schedulers", "optimizer_states", "state_dict")


class SafeCheckpoints(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, which never executes code of a checkpoint.

    Lightning leaves this to the default of `torch.load`, which a program can change, or to the caller.
    """

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = True) -> dict[str, Any]:
        """Read a checkpoint to the CPU.

        Raises:
            DamagedFileError: The file is damaged, or is not a checkpoint.
        """
        content: dict[str, Any] = read_torch_file(path)
        return content


def is_interrupted(recipe: Settings, output: Path, needed: Iterable[str]) -> bool:
    """Whether a folder holds a run of exactly this recipe that can be resumed.

    Args:
        recipe: Recipe of the run.
        output: Folder of the results.
        needed: Names of the files, besides `recipe.yml`, that are needed to resume.
    """
    missing = [name for name in (results_folder.RECIPE, *needed) if not (output / name).is_file()]
    finished = any((output / name).is_file() for name in results_folder.AT_THE_END)
    if missing:
        if finished:
            _log.warning(_REPLACED, output, f"they lack {missing[0]}")
        return False
    try:
        before = type(recipe).load(output / results_folder.RECIPE)
    except RecipeError as reason:
        _log.warning(_REPLACED, output, reason)
        return False
    # Through the checks, so that keys that are newer than the file count with their defaults.
    same = bool(before.to_dict(absolute=True) == recipe.to_dict(absolute=True))
    if not same:
        _log.info(_REPLACED, output, "they are of another recipe")
    return same


def read_checkpoint(path: Path, callback: str) -> dict[str, Any]:
    """Read a checkpoint of Lightning, and check that it has the state of a callback with at least one epoch.

    Args:
        path: Path of the checkpoint.
        callback: Key of the callback's state, which has the history in `rows`.

    Raises:
        DamagedFileError: The file is damaged, or is a checkpoint of something else.
        InputError: The file cannot be read.
    """
    content = read_torch_file(path)
    lacks = [part for part in _PARTS if part not in content] if isinstance(content, Mapping) else list(_PARTS)
    if lacks:
        raise DamagedFileError(f"{path} is not a checkpoint of a training: it lacks '{lacks[0]}'")
    state = content["callbacks"].get(callback) if isinstance(content["callbacks"], Mapping) else None
    rows = state.get("rows") if isinstance(state, Mapping) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise DamagedFileError(f"{path} is a checkpoint of something else: it lacks the history of this kind of run")
    return dict(content)


def usable(path: Path, check: Callable[[Path], None], what: str) -> bool:
    """Check a checkpoint before it is used. The main process renames one that cannot be used, and the log says so.

    Args:
        path: Path of the checkpoint.
        check: Function that raises a `DamagedFileError` if the checkpoint cannot be used.
        what: Name of the run that starts over, for the log.

    Returns:
        Whether the checkpoint can be used.
    """
    try:
        check(path)
        return True
    except InputError as reason:
        if not is_main_process():  # the main process may be renaming it
            return False
        if not isinstance(reason, DamagedFileError):
            raise
        _log.warning("%s; it is kept as %s, and %s starts over", reason, set_aside(path).name, what)
        return False


@contextlib.contextmanager
def restoring(path: Path | None, begun: Callable[[], bool]) -> Iterator[None]:
    """Context manager around a fit that sets a checkpoint aside if its state cannot be restored.

    Args:
        path: Path of the checkpoint; `None` if the fit starts without one.
        begun: Function that returns whether the training has begun, so that errors are no longer the checkpoint's.

    Raises:
        RunError: The state cannot be restored. The message says that the same command starts over.
    """
    try:
        yield
    except Exception as reason:
        if path is None or begun() or isinstance(reason, (ProxylessError, OSError)) or is_out_of_memory(reason):
            raise
        why = " ".join(str(reason).split())[:150]
        raise RunError(
            f"{path} does not fit this run ({type(reason).__name__}: {why}); it is kept as {set_aside(path).name}, and "
            "the same command starts over"
        ) from reason


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used to `NAME.damaged`, or `NAME.damaged-2` and so on. Return the new path."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    path.rename(aside)
    return aside
