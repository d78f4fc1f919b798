"""Files of arrays that are truncated, empty, hostile or larger than the memory."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_proxyless.data import npz_file
from nni_proxyless.data.image_arrays import load_arrays
from nni_proxyless.data.npz_file import read_arrays
from nni_proxyless.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


class Trap:
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path, **{"images": PIXELS, "labels": LABELS, **arrays})
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(save: Any, order: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save(path, images=np.asarray(PIXELS, order=order), labels=LABELS.astype(">i4"), other=np.array([{}]))
    found = read_arrays(path, ("images", "labels", "test_images"))
    assert sorted(found) == ["images", "labels"]
    np.testing.assert_array_equal(found["images"], PIXELS)
    np.testing.assert_array_equal(found["labels"], LABELS)


def test_nothing_in_a_file_of_arrays_is_executed(tmp_path: Path) -> None:
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(tmp_path / "made")
    with pytest.raises(DataError, match="'images' must hold numbers, got 'object'"):
        load_arrays(written(tmp_path / "x.npz", images=trap))
    (tmp_path / "y.npz").write_bytes(pickle.dumps(Trap(tmp_path / "made")))
    with pytest.raises(DataError, match="cannot be read as an"):
        load_arrays(tmp_path / "y.npz")
    assert not (tmp_path / "made").exists()


def test_damaged_files(tmp_path: Path) -> None:
    whole = written(tmp_path / "good.npz").read_bytes()
    path = tmp_path / "x.npz"
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-10], b"PK" + whole[2:40], b"\0" * 1000):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as an"):
            load_arrays(path)
    place = whole.index(PIXELS.tobytes()[:50])
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(DataError, match="Bad CRC-32"):
        load_arrays(path)
    np.savez(path)
    with pytest.raises(DataError, match="has no array 'images'; it has none"):
        load_arrays(path)


def test_files_that_would_fill_the_memory_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, head = tmp_path / "x.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**4, 20, 20, 1)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head.getvalue() + bytes(4 * 10**6))
    assert path.stat().st_size < 10**4
    monkeypatch.setattr(npz_file, "_MUCH", 10**6)
    with pytest.raises(DataError, match=r"holds \d{4} bytes that unpack to 4000\d{3}, which no images do"):
        load_arrays(path)
    monkeypatch.setattr(os, "sysconf", lambda _: 10)
    with pytest.raises(DataError, match=r"its arrays take \d+ bytes, but this machine has a memory of 100 bytes"):
        load_arrays(written(tmp_path / "y.npz"))


def test_a_header_that_lies_about_the_shape(tmp_path: Path) -> None:
    path, head = tmp_path / "x.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 1, 1)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", head.getvalue() + b"abc")
    with pytest.raises(DataError, match=r"'images' should have 1000000000000 bytes by its shape \(10"):
        read_arrays(path, ("images",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((12, 0, 4), np.uint8)}, "none of them 0, got uint8 of shape"),
        (
            {"labels": np.array([2**40] * 12)},
            "must have an image of each class from 0, got 1099511627776 of 12",
        ),
        ({"labels": np.array([2**63 + 5] * 12, np.uint64)}, "'labels' must have an image of each class"),
        ({"labels": LABELS.astype(complex)}, "'labels' must hold numbers, got 'complex128'"),
        ({"labels": LABELS.astype("M8[s]")}, "'labels' must hold numbers, got 'datetime64"),
        ({"labels": LABELS.astype("U3")}, "'labels' must hold numbers, got '<U3'"),
        ({"images": PIXELS.astype(np.float32)}, "'images' must be uint8"),
    ],
)
def test_arrays_that_are_no_images_with_classes(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_arrays(written(tmp_path / "x.npz", **changes))
