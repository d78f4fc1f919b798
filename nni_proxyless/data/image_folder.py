"""Images in ImageNet's layout: one folder for each class. Every fault names its file, before the training starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, clipped
from ..files.reading import digest
from .pillow_images import frames, read_image, suffixes

_log = logging.getLogger(__name__)
_NO_IMAGES = ("thumbs.db", "desktop.ini", "icon\r")  # that file managers write; names with a dot are skipped anyway
_NO_CLASSES = ("__macosx",)
_DECODED_BYTES = 64 * 2**20  # of image files that are decoded as a whole before a training; about 10 s
_OPENED_FILES = 20_000  # whose beginning is read before a training
_LISTED = 5
_checked: set[tuple[object, ...]] = set()


@dataclass(frozen=True)
class FolderContent:
    """The image files of a folder.

    Attributes:
        classes: Names of the classes, sorted: the names of the folders.
        paths: Image files, sorted by class and name.
        labels: Class of each file, counted from 0.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]


class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Data set of image files that are read when they are needed.

    Args:
        content: Files and their classes.
        channels: 3 for colours, 1 for grey.
        prepare: Function from an image of mode RGB, L or F to the network's input.
    """

    def __init__(self, content: FolderContent, channels: int, prepare: Callable[[Image.Image], Tensor]) -> None:
        self.content = content
        self._channels = channels
        self._prepare = prepare

    def __len__(self) -> int:
        return len(self.content.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = read_image(self.content.paths[index], self._channels)
        return self._prepare(image), self.content.labels[index]


def list_folder(folder: Path) -> FolderContent:
    """List the classes of a folder and their image files. Folders and files whose name begins with a dot are skipped.

    Args:
        folder: Folder with one folder for each class. Folders within a class belong to it.

    Raises:
        DataError: There is no class, a class has no image, or holds a file that is no image.
    """
    try:
        inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
        classes = [entry.name for entry in inside if entry.is_dir() and not _hidden(entry.name, _NO_CLASSES)]
        loose = [
            e.name for e in inside if e.is_file() and Path(e.name).suffix.lower() in suffixes() and e.name[0] != "."
        ]
    except OSError as reason:
        raise DataError(f"data_dir {clipped(str(folder))} cannot be read: {reason.strerror}") from reason
    if not classes:
        raise DataError(f"data_dir {folder} holds no images: it needs one folder of images for each class")
    if loose:
        _log.warning(
            "%d images in %s belong to no class and are not used, such as %s; each class needs a folder of its own",
            len(loose), folder, clipped(loose[0]),
        )  # fmt: skip
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = list(_images(folder / name))
        if not found:
            raise DataError(f"data_dir {folder} holds no images in its folder {clipped(name)}; add some or remove it")
        paths += found
        labels += [label] * len(found)
    return FolderContent(tuple(classes), tuple(paths), tuple(labels))


def _images(folder: Path) -> list[str]:
    found = []
    for root, files in sorted(_walk(folder)):
        # `os.walk` goes on before the list is sorted, so hidden folders are recognised by their whole path.
        parts = Path(root).relative_to(folder).parts
        if any(_hidden(part, _NO_CLASSES) for part in parts):
            continue
        for name in sorted(files):
            if _hidden(name, _NO_IMAGES):
                continue
            path = os.path.join(root, name)
            if Path(name).suffix.lower() not in suffixes():
                raise DataError(
                    f"{clipped(path)} is not an image: its name ends with none of {', '.join(_usual())}; move it out "
                    "of the folder of the class"
                )
            found.append(path)
    return found


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """List the folders within a folder and their files. A link to a folder above it is not followed."""
    for root, folders, files in os.walk(folder, followlinks=True):
        above = {os.path.realpath(root), *map(str, Path(os.path.realpath(root)).parents)}
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(root, name)) not in above]
        yield root, files


def _usual() -> list[str]:
    return [ending for ending in (".jpg", ".png", ".webp", ".bmp", ".gif", ".tif", ".pgm") if ending in suffixes()]


def _hidden(name: str, others: Sequence[str]) -> bool:
    return name.startswith(".") or name.lower() in others


def check_classes(train: FolderContent, other: FolderContent, folders: tuple[Path, Path]) -> None:
    """Check that two folders have the same classes.

    Args:
        train: Files of the training images.
        other: Files of other images.
        folders: The two folders, for the message.

    Raises:
        DataError: They differ. The message lists the classes that only one of them has.
    """
    parts = []
    for mine, theirs, folder in ((train, other, folders[0]), (other, train, folders[1])):
        only = sorted(set(mine.classes) - set(theirs.classes))
        if only:
            more = f" and {len(only) - _LISTED} more" if len(only) > _LISTED else ""
            parts.append(f"only {folder} has {', '.join(clipped(name, 40) for name in only[:_LISTED])}{more}")
    if parts:
        raise DataError(
            f"{folders[1]} and {folders[0]} must have the same folders of classes, but have {len(other.classes)} and "
            f"{len(train.classes)}: {'; '.join(parts)}"
        )


def check_files(content: FolderContent, channels: int) -> None:
    """Check image files before a training starts, and say which have several frames.

    Small data sets are decoded completely. Of large ones, the beginnings of some files are read; the others are checked
    when the training needs them. Files that have not changed are checked once in a process.

    Args:
        content: Files to check.
        channels: 3 for colours, 1 for grey.

    Raises:
        DataError: A file is damaged, or of a mode that cannot be converted. The message names the first one and the
            number of the others.
    """
    stats = [os.stat(path) for path in content.paths if os.path.exists(path)]
    size = sum(one.st_size for one in stats)
    key = (content.paths[0], len(stats), size, sum(one.st_mtime_ns for one in stats), channels)
    if key in _checked:
        return
    step = max(1, -(-len(content.paths) // _OPENED_FILES))
    faults: list[DataError] = []
    several = []
    for path in content.paths[::step]:
        try:
            if frames(path) > 1:
                several.append(path)
            if size <= _DECODED_BYTES:
                read_image(path, channels)
        except DataError as reason:
            faults.append(reason)
    if faults:
        more = f" ({len(faults) - 1} other images cannot be read either)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}") from faults[0]
    if several:
        _log.warning(
            "%d image files have several frames, such as %s; only the first frame of each is used",
            len(several), clipped(several[0]),
        )  # fmt: skip
    _checked.add(key)


def warn_of_copies(train: FolderContent, other: FolderContent, folder: Path) -> None:
    """Warn if files of another folder are copies of training images, whose accuracy says nothing about new images.

    The files of large data sets are not compared.

    Args:
        train: Files of the training images, which exist.
        other: Files of other images, which exist.
        folder: Folder of the other images, for the message.
    """
    sizes = {path: os.path.getsize(path) for path in (*train.paths, *other.paths)}
    if sum(sizes.values()) > _DECODED_BYTES:
        return
    both = {sizes[path] for path in train.paths} & {sizes[path] for path in other.paths}
    known = {digest(path, "image", DataError) for path in train.paths if sizes[path] in both}
    copies = [path for path in other.paths if sizes[path] in both and digest(path, "image", DataError) in known]
    if copies:
        _log.warning(
            "%d of the %d images in %s are copies of training images, such as %s; the accuracy on them says nothing "
            "about new images", len(copies), len(other.paths), folder, clipped(copies[0]),
        )  # fmt: skip
