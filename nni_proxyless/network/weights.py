"""Files of trained weights: plain state dicts. Loading a file never executes code from it."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from ..errors import ArchitectureError, InputError, clipped
from ..files import write_atomically
from ..reading import open_regular


def save_weights(network: nn.Module, path: Path) -> Path:
    """Write a network's state dict atomically, with all tensors on the CPU."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    buffer = io.BytesIO()  # if torch wrote the file itself, a full disk would raise an error other than OSError
    torch.save(state, buffer)

    def write(temporary: Path) -> None:
        temporary.write_bytes(buffer.getvalue())

    return write_atomically(path, write)


def load_tensors(path: str | os.PathLike[str], what: str, otherwise: str, error: type[InputError]) -> Any:
    """Read a file of `torch.save`. Code in the file is never executed, and what it unpacks to is bounded by its size.

    Args:
        path: Path of the file.
        what: Kind of file in error messages, such as "checkpoint".
        otherwise: What to say about a file of another kind, after its path.
        error: Class of the error to raise.

    Raises:
        InputError: There is no such file, it is no regular file, or it cannot be read. The error is of class `error`.
    """
    name = clipped(os.fspath(path))
    try:
        with open_regular(path, what, error) as file:
            if zipfile.is_zipfile(file):
                _check_unpacked(file, f"{name} {otherwise}", error)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as reason:  # an unpickler raises errors of many kinds for a file that is something else
        raise error(f"{name} {otherwise}") from reason


def _check_unpacked(file: IO[bytes], message: str, error: type[InputError]) -> None:
    """Check that a ZIP archive does not unpack to much more than its own size: `torch.save` does not compress."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    size = file.seek(0, os.SEEK_END)
    if unpacked > 2 * size + 2**20:
        raise error(f"{message} (it has {size} bytes and would unpack to {unpacked})")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict. Code in the file is never executed.

    Raises:
        ArchitectureError: There is no such file, or it does not contain a state dict.
    """
    file = Path(path)
    if not file.is_file():
        raise ArchitectureError(f"there is no file of weights {file}; give a weights.pt of a search or retraining")
    state = load_tensors(file, "weights", "holds no weights, or it is truncated; give a weights.pt", ArchitectureError)
    named = isinstance(state, Mapping) and all(isinstance(key, str) for key in state)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise ArchitectureError(f"{file} is no state dict of tensors; give the weights.pt of a search or retraining")
    for key, value in state.items():
        if (fault := fault_of(value)) is not None:
            raise ArchitectureError(f"{file}: the weights '{clipped(key)}' {fault}")
    return dict(state)


def fault_of(tensor: Tensor, *, allowed: float | None = None) -> str | None:
    """Say what is wrong with a tensor of a file: it must hold finite real numbers, one after the other in memory.

    Args:
        tensor: Tensor of a file.
        allowed: Infinite value that is allowed all the same.

    Returns:
        The rest of a sentence that begins with the name of the tensor; `None` if nothing is wrong.
    """
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return f"must be a plain tensor, got one of layout {tensor.layout} on device {tensor.device}"
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return f"must be real numbers, got {tensor.dtype}"
    if tensor.is_floating_point():
        good = tensor.isfinite() if allowed is None else tensor.isfinite() | (tensor == allowed)
        if not bool(good.all()):
            return "must be finite numbers, but some are infinite or not a number"
    return None


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
        if value.shape != state[key].shape:
            raise ArchitectureError(
                f"{source} are weights of another architecture: '{key}' is {tuple(state[key].shape)}, and this one "
                f"needs {tuple(value.shape)}"
            )
    network.load_state_dict(state)
