"""Reading of files that PyTorch has written, weights and checkpoints. Code in a file is never executed."""

from __future__ import annotations

import errno
import math
import os
import warnings
import zipfile
from typing import IO, TYPE_CHECKING, Any

from ..errors import DamagedFileError, InputError, clipped
from ..files.reading import open_regular
from ..process_memory import is_out_of_memory

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

_ARCHIVE = b"PK"
_BEGINNINGS = (_ARCHIVE, b"\x80")  # the second one is that of a pickle, which older versions of torch write


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Read a file of tensors and plain data to the CPU, and compare its parts with their checksums.

    Nothing is unpacked from a file that would unpack to much more than its own size.

    Raises:
        DamagedFileError: The file is truncated or damaged, or it holds something else, such as code.
        InputError: The file cannot be read.
        MemoryError: There is not enough memory. PyTorch also raises a `RuntimeError` then (`is_out_of_memory`).
    """
    name = check_kind(path)
    import torch

    try:
        with open_regular(path, "file", InputError) as content:
            if zipfile.is_zipfile(content):
                _check_parts(content, name)
            content.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns of some files that it then refuses
                return torch.load(content, map_location="cpu", weights_only=True)
    except (InputError, MemoryError):
        raise
    except Exception as reason:  # an unpickler raises errors of many kinds for a file that is something else
        if is_out_of_memory(reason):
            raise
        if isinstance(reason, OSError) and reason.errno not in (None, errno.EINVAL):  # EINVAL: a truncated archive
            raise InputError(f"cannot read {name}: {reason.strerror}") from reason
        raise DamagedFileError(
            f"{name} is truncated or damaged, or it holds something other than tensors and plain data"
        ) from reason


def check_kind(path: str | os.PathLike[str]) -> str:
    """Check the beginning of a file that PyTorch should have written, without importing torch.

    Returns:
        Name of the file for messages.

    Raises:
        DamagedFileError: The file does not begin like one that PyTorch writes.
        InputError: The file cannot be read.
    """
    name = clipped(os.fspath(path))
    with open_regular(path, "file", InputError) as content:
        try:
            beginning = content.read(2)
            good = beginning.startswith(_BEGINNINGS)
            if beginning == _ARCHIVE:
                content.seek(0)
                good = any(part.endswith("data.pkl") for part in zipfile.ZipFile(content).namelist())
        except Exception as reason:  # `zipfile` raises errors of many kinds for a damaged archive
            if isinstance(reason, OSError) and reason.errno not in (None, errno.EINVAL):
                raise InputError(f"cannot read {name}: {reason.strerror}") from reason
            good = False
    if not good:
        raise DamagedFileError(
            f"{name} is truncated or damaged, or it holds something other than tensors and plain data"
        )
    return name


def _check_parts(content: IO[bytes], name: str) -> None:
    with zipfile.ZipFile(content) as parts:
        unpacked, size = sum(part.file_size for part in parts.infolist()), content.seek(0, os.SEEK_END)
        if unpacked > 2 * size + 2**20:  # torch does not compress
            raise DamagedFileError(
                f"{name} has {size} bytes and would unpack to {unpacked}, so PyTorch did not write it"
            )
        damaged = parts.testzip()  # torch itself does not compare the checksums
    if damaged is not None:
        raise DamagedFileError(f"{name} is damaged: the checksum of its part {clipped(damaged)} is wrong")


def fault_of(tensor: Tensor, *, pruned: bool = False) -> str | None:
    """Say what is wrong with a tensor of a file: it must hold finite real numbers, one after the other in memory.

    Args:
        tensor: Tensor of a file.
        pruned: Whether it may hold -inf, the α of a pruned path.

    Returns:
        The rest of a sentence that begins with the name of the tensor; `None` if nothing is wrong.
    """
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return f"must be a plain tensor, got one of layout {tensor.layout} on device {tensor.device}"
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return f"must be real numbers, got {tensor.dtype}"
    if tensor.is_floating_point():
        good = tensor.isfinite() | (tensor == -math.inf) if pruned else tensor.isfinite()
        if not bool(good.all()):
            return "must be finite numbers, but some are infinite or not a number"
    return None
