"""Safe reading of an `.npz` file: nothing in it is executed, and it is not unpacked to more than fits into memory."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import DataError, clipped, shown
from ..files.reading import open_regular

_MOST_RATIO = 100  # to which data of more than `_MUCH` bytes may be compressed; photographs reach about 2
_MUCH = 256 * 2**20


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Read some arrays of an `.npz` file of numpy, compressed or not.

    Args:
        path: Path of the file.
        names: Names of the arrays. Other arrays of the file are not read.

    Returns:
        Those of the arrays that the file has, by name.

    Raises:
        DataError: The file cannot be read, is damaged, holds objects instead of numbers, or its arrays do not fit into
            memory.
    """
    try:
        with open_regular(path, "data set", DataError) as file, zipfile.ZipFile(file) as archive:
            held = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if len(held) < len(archive.infolist()):
                raise DataError(f"{path} has two arrays of the same name")
            wanted = [name for name in names if name in held]
            _check_memory(path, [held[name] for name in wanted])
            if not wanted:
                listed = ", ".join(sorted(held)[:10])
                raise DataError(f"{path} has no array '{names[0]}'; it has {clipped(listed) or 'none'}")
            return {name: _read(archive, held[name], f"{path}: '{name}'") for name in wanted}
    except DataError:
        raise
    except Exception as reason:  # archives and headers that are damaged raise errors of many kinds
        detail = clipped(" ".join(str(reason).split())) or type(reason).__name__
        raise DataError(f"{path} cannot be read as an .npz file of numpy: {detail}") from reason


def _check_memory(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    unpacked, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else math.inf
    if unpacked > memory:
        raise DataError(
            f"{path}: its arrays take {unpacked} bytes, but this machine has a memory of {memory:.0f} bytes"
        )
    if unpacked > _MUCH and unpacked > _MOST_RATIO * packed:
        raise DataError(
            f"{path} holds {packed} bytes that unpack to {unpacked}, which no images do; if they are right, save them "
            "with numpy.savez instead of savez_compressed"
        )


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str) -> NDArray[np.generic]:
    with archive.open(entry) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
        shape, fortran, dtype, begin = _header(file, where)
        size = math.prod(shape) * dtype.itemsize
        if size != entry.file_size - begin:
            raise DataError(f"{where} should have {size} bytes by its shape {shown(shape)}, but has another number")
        content = file.read()
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic], int]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise DataError(f"{where} has the format {version[0]}.{version[1]} of numpy, and only 1.0 and 2.0 are known")
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.itemsize == 0 or dtype.kind not in "biuf":
        raise DataError(f"{where} must hold numbers, got {shown(str(dtype))}")
    return shape, fortran, dtype, file.tell()
