"""Files of trained weights: plain state dicts. Loading a file never executes code from it."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArchitectureError, DamagedFileError, clipped
from ..files import results_folder
from ..files.nearby import did_you_mean, try_folders_with
from ..files.writing import write_atomically
from .torch_file import check_kind, fault_of, read_torch_file

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor, nn


def save_weights(network: nn.Module, path: Path) -> Path:
    """Write a network's state dict atomically, with all tensors on the CPU."""
    import torch

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    buffer = io.BytesIO()  # if torch wrote the file itself, a full disk would raise an error other than OSError
    torch.save(state, buffer)

    def write(temporary: Path) -> None:
        temporary.write_bytes(buffer.getvalue())

    return write_atomically(path, write)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict. Code in the file is never executed.

    Raises:
        ArchitectureError: There is no such file, or it does not contain a state dict.
    """
    from torch import Tensor

    file = Path(path)
    check_file(file)
    try:
        state = read_torch_file(file)
    except DamagedFileError as reason:
        raise _no_weights(file) from reason
    named = isinstance(state, Mapping) and all(isinstance(key, str) for key in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise ArchitectureError(f"{file} is not a state dict of tensors; give the weights.pt of a search or retraining")
    for key, value in state.items():
        if (fault := fault_of(value)) is not None:
            raise ArchitectureError(f"{file}: the weights '{clipped(key)}' {fault}")
    return dict(state)


def weights_file(path: Path) -> Path:
    """Return the file that a path stands for. For a results folder, this is its `weights.pt`, or else its checkpoint.

    Raises:
        ArchitectureError: The folder has neither.
    """
    if not path.is_dir():
        return path
    names = (results_folder.WEIGHTS, results_folder.CHECKPOINT)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        end = try_folders_with(path, names[0], "give the folder of a search or of a retraining")
        raise ArchitectureError(f"the folder {path} has neither {' nor '.join(names)} to inherit from; {end}")
    return found


def check_file(file: Path) -> None:
    """Check that there is a file of weights, as far as that can be told without torch.

    Raises:
        ArchitectureError: There is no such file, or PyTorch did not write it.
    """
    if not file.is_file():
        end = did_you_mean(file) or "; give a weights.pt of a search or retraining"
        raise ArchitectureError(f"there is no file of weights {file}{end}")
    try:
        check_kind(file)
    except DamagedFileError as reason:
        raise _no_weights(file) from reason


def _no_weights(file: Path) -> ArchitectureError:
    return ArchitectureError(f"{file} holds no weights, or it is truncated or damaged; give a weights.pt")


def load_into(network: nn.Module, weights: str | os.PathLike[str] | Mapping[str, Any]) -> None:
    """Load weights into a network.

    Args:
        network: Network that receives the weights; changed in place.
        weights: Path of a weights file, or a state dict.

    Raises:
        ArchitectureError: The file cannot be read, or the weights belong to another architecture. The message names
            the first entry that does not fit.
    """
    state = dict(weights) if isinstance(weights, Mapping) else read_weights(weights)
    source = "the given weights" if isinstance(weights, Mapping) else os.fspath(weights)
    own = network.state_dict()
    odd = next((key for key in (*own, *state) if key not in own or key not in state), None)
    if odd is not None:
        where = "lack" if odd in own else "also contain"
        raise ArchitectureError(f"{source} are weights of another architecture: they {where} '{odd}'")
    for key, value in own.items():
        if value.is_floating_point() != state[key].is_floating_point():
            raise ArchitectureError(
                f"{source} are weights of another architecture: '{key}' is {state[key].dtype}, and this one needs "
                f"{value.dtype}"
            )
        if value.shape != state[key].shape:
            raise ArchitectureError(
                f"{source} are weights of another architecture: '{key}' is {tuple(state[key].shape)}, and this one "
                f"needs {tuple(value.shape)}"
            )
    network.load_state_dict(state)
