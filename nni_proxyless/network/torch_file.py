"""Reading of files that PyTorch has written, weights and checkpoints. Code in a file is never executed."""

from __future__ import annotations

import errno
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import DamagedFileError, InputError


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """Read a file of tensors and plain data to the CPU, and compare its parts with their checksums.

    Raises:
        DamagedFileError: The file is truncated or damaged, or it holds something else, such as code.
        InputError: The file cannot be read.
    """
    file = Path(path)
    try:
        with file.open("rb"):
            pass
    except OSError as reason:
        raise InputError(f"cannot read {file}: {reason.strerror or reason}") from reason
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as parts:
                damaged = parts.testzip()  # torch itself does not compare the checksums
            if damaged is not None:
                raise DamagedFileError(f"{file} is damaged: the checksum of its part {damaged} is wrong")
        return torch.load(file, map_location="cpu", weights_only=True)
    except (DamagedFileError, MemoryError):
        raise
    except Exception as reason:  # an unpickler raises errors of many kinds for a file that is something else
        if isinstance(reason, OSError) and reason.errno == errno.EIO:
            raise InputError(f"cannot read {file}: {reason.strerror}") from reason
        raise DamagedFileError(
            f"{file} is truncated or damaged, or it holds something other than tensors and plain data"
        ) from reason
