"""Data sets, and the one seeded split into weight-training, architecture-training and held-out parts.

The paper takes the architecture part from the training set so that the test set is never searched on
(section 4.3); so do we, and a third part, which neither weights nor architecture ever learn from, judges the
decoded networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from ..errors import DataError, unknown_name
from .sources import SOURCES, ImageDataset


@dataclass(frozen=True)
class DataSplits:
    """The three parts; no image is in two of them.

    Attributes:
        weights: Trains the weights.
        architecture: Trains the architecture.
        finalists: The images of `architecture` without augmentation: compares networks at the end of a search.
        held_out: Judges decoded networks; without augmentation.
        statistics: The images of `weights` without augmentation: re-estimates batch-norm statistics.
        num_classes: Number of classes.
        training: `weights` and `architecture` together: trains a network that has been found.
        test: The data set's own test part, where it has one.
        natural: Whether the images are photographs.
    """

    weights: Subset[tuple[Tensor, Any]]
    architecture: Subset[tuple[Tensor, Any]]
    finalists: Subset[tuple[Tensor, Any]]
    held_out: Subset[tuple[Tensor, Any]]
    statistics: Subset[tuple[Tensor, Any]]
    num_classes: int
    training: Subset[tuple[Tensor, Any]]
    test: ImageDataset | None
    natural: bool


def load_splits(
    name: str,
    input_shape: tuple[int, int, int],
    *,
    data_dir: Path | None = None,
    download: bool = False,
    arch_fraction: float = 0.2,
    held_out_fraction: float = 0.2,
    seed: int = 0,
) -> DataSplits:
    """Load a data set and split it.

    Args:
        name: `digits`, `cifar10`, `cifar100`, `imagefolder` or `arrays`.
        input_shape: Channels, height and width that the network takes.
        data_dir: Folder of the files, of `arrays` the `.npz` file; `digits` needs none.
        download: Whether torchvision may download CIFAR.
        arch_fraction: Part of the images that trains the architecture.
        held_out_fraction: Part that is held out.
        seed: Of the split; equal for equal seeds, whatever else the search does.

    Raises:
        DataError: There is no such data set, its folder is missing or empty, or it is too small to be split.
    """
    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    source = SOURCES[name](input_shape, data_dir, download)
    weights, architecture, held_out = split_indices(source.labels, arch_fraction, held_out_fraction, seed)
    return DataSplits(
        weights=Subset(source.train, weights),
        architecture=Subset(source.train, architecture),
        finalists=Subset(source.plain, architecture),
        held_out=Subset(source.plain, held_out),
        statistics=Subset(source.plain, weights),
        num_classes=source.num_classes,
        training=Subset(source.train, sorted([*weights, *architecture])),
        test=source.test,
        natural=source.natural,
    )


def split_indices(
    labels: Sequence[int], arch_fraction: float, held_out_fraction: float, seed: int
) -> tuple[list[int], list[int], list[int]]:
    """Seeded, stratified split into weight-training, architecture-training and held-out indices.

    Raises:
        DataError: A class has too few images for three parts.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < arch_fraction < 1 or not 0 < held_out_fraction < 1 or arch_fraction + held_out_fraction >= 1:
        raise DataError(
            "arch_fraction and held_out_fraction must be between 0 and 1 and leave images for weight training, "
            f"got {arch_fraction} and {held_out_fraction}"
        )
    targets = np.asarray(labels)
    everything = np.arange(len(targets))
    try:
        rest, held_out = train_test_split(
            everything, test_size=round(held_out_fraction * len(targets)), random_state=seed, stratify=targets
        )
        weights, architecture = train_test_split(
            rest, test_size=round(arch_fraction * len(targets)), random_state=seed, stratify=targets[rest]
        )
    except ValueError as reason:
        raise DataError(f"{len(targets)} images cannot be split into three parts: {reason}") from reason
    return sorted(weights.tolist()), sorted(architecture.tolist()), sorted(held_out.tolist())
