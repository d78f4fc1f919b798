"""The seeded split of a data set into a weight-training, an architecture-training and a held-out part.

The paper takes the architecture part from the training set, so that the search never sees the test set (section 4.3).
This package does the same, and holds out a third part on which decoded networks are evaluated. Neither weights nor
architecture are trained on the third part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from ..errors import DataError, clipped
from .image_settings import ImageSettings
from .place import check_place
from .preprocessing import Preprocessing
from .request import DataSource, ImageDataset, Request
from .sources import load_source

_LISTED = 5


@dataclass(frozen=True)
class DataSplits:
    """The three disjoint parts `weights`, `architecture` and `held_out` of a data set, and other views of them.

    Attributes:
        weights: Images that train the weights.
        architecture: Images that train the architecture.
        finalists: Images of `architecture` without augmentation, for comparing networks at the end of a search.
        held_out: Images without augmentation, for evaluating decoded networks.
        statistics: Images of `weights` without augmentation, for re-estimating batch-norm statistics.
        num_classes: Number of classes.
        training: Images of `weights` and `architecture` together, for training the network that a search has found.
        test: The data set's own test set; `None` if there is none.
        preprocessing: Steps from an image to the network's input.
        class_names: Names of the classes, in the order of the network's outputs.
        training_labels: Class of each image of `training`.
        weights_labels: Class of each image of `weights`.
        held_out_labels: Class of each image of `held_out`.
    """

    weights: Subset[tuple[Tensor, Any]]
    architecture: Subset[tuple[Tensor, Any]]
    finalists: Subset[tuple[Tensor, Any]]
    held_out: Subset[tuple[Tensor, Any]]
    statistics: Subset[tuple[Tensor, Any]]
    num_classes: int
    training: Subset[tuple[Tensor, Any]]
    test: ImageDataset | None
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    training_labels: tuple[int, ...]
    weights_labels: tuple[int, ...]
    held_out_labels: tuple[int, ...]


def load_splits(
    name: str,
    input_shape: tuple[int, int, int],
    *,
    data_dir: Path | None = None,
    download: bool = False,
    arch_fraction: float = 0.2,
    held_out_fraction: float = 0.2,
    seed: int = 0,
    settings: ImageSettings | None = None,
    folder: Path | None = None,
) -> DataSplits:
    """Load a data set and split it.

    Args:
        name: Name of the data set: `digits`, `cifar10`, `cifar100`, `imagefolder`, `arrays`, `torchvision:Name`, or
            `package.module:function` for a function that returns data sets.
        input_shape: Channels, height and width of the network's input.
        data_dir: Folder of the data set's files; for `arrays`, the path of the `.npz` file. `digits` needs none.
        download: Whether torchvision may download its data set.
        arch_fraction: Fraction of the images that trains the architecture.
        held_out_fraction: Fraction of the images that is held out, unless the data set has held-out images of its own.
        seed: Seed of the split. The split depends on no other random numbers of the search.
        settings: Settings of the images, such as a recipe. Default: the package's defaults.
        folder: Folder of the recipe, in which the module of a function is looked for.

    Raises:
        DataError: There is no such data set, its files are missing or do not fit, or it is too small to be split.
    """
    check_place(name, input_shape, data_dir, download)
    source = load_source(Request(name, input_shape, data_dir, download, settings or ImageSettings(), folder))
    if source.held_out is None:
        weights, architecture, held_out = split_indices(
            source.labels, arch_fraction, held_out_fraction, seed, source.class_names
        )
    else:
        weights, architecture = _split_in_two(source.labels, arch_fraction, seed, source.class_names)
        held_out = list(range(len(source.held_out_labels)))
    return _splits(source, weights, architecture, held_out)


def _splits(source: DataSource, weights: list[int], architecture: list[int], held_out: list[int]) -> DataSplits:
    training = sorted([*weights, *architecture])
    apart = source.held_out is not None
    held_labels = source.held_out_labels if apart else source.labels
    return DataSplits(
        weights=Subset(source.train, weights),
        architecture=Subset(source.train, architecture),
        finalists=Subset(source.plain, architecture),
        held_out=Subset(source.held_out if source.held_out is not None else source.plain, held_out),
        statistics=Subset(source.plain, weights),
        num_classes=source.num_classes,
        training=Subset(source.train, training),
        test=source.test,
        preprocessing=source.preprocessing,
        class_names=source.class_names,
        training_labels=tuple(source.labels[i] for i in training),
        weights_labels=tuple(source.labels[i] for i in weights),
        held_out_labels=tuple(held_labels[i] for i in held_out),
    )


def split_indices(
    labels: Sequence[int], arch_fraction: float, held_out_fraction: float, seed: int, names: Sequence[str] = ()
) -> tuple[list[int], list[int], list[int]]:
    """Split a data set at random, stratified by class.

    Args:
        labels: Class of each image.
        arch_fraction: Fraction of the images that trains the architecture.
        held_out_fraction: Fraction of the images that is held out.
        seed: Seed of the split.
        names: Names of the classes, for error messages.

    Returns:
        Sorted indices of the weight-training, the architecture-training and the held-out part.

    Raises:
        DataError: The fractions leave no images for weight training, or a class has too few images for three parts.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < arch_fraction < 1 or not 0 < held_out_fraction < 1 or arch_fraction + held_out_fraction >= 1:
        raise DataError(
            "arch_fraction and held_out_fraction must be between 0 and 1 and leave images for weight training, "
            f"got {arch_fraction} and {held_out_fraction}"
        )
    targets = _targets(labels, (("arch_fraction", arch_fraction), ("held_out_fraction", held_out_fraction)))
    everything = np.arange(len(targets))
    try:
        rest, held_out = train_test_split(
            everything, test_size=round(held_out_fraction * len(targets)), random_state=seed, stratify=targets
        )
        weights, architecture = train_test_split(
            rest, test_size=round(arch_fraction * len(targets)), random_state=seed, stratify=targets[rest]
        )
    except ValueError as reason:
        why = _too_few(targets, 3, names) or reason
        raise DataError(f"{len(targets)} images cannot be split into three parts: {why}") from reason
    return sorted(weights.tolist()), sorted(architecture.tolist()), sorted(held_out.tolist())


def _split_in_two(
    labels: Sequence[int], arch_fraction: float, seed: int, names: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Split a data set that has its own held-out images into the parts for weights and architecture."""
    from sklearn.model_selection import train_test_split

    targets = _targets(labels, (("arch_fraction", arch_fraction),))
    try:
        weights, architecture = train_test_split(
            np.arange(len(targets)), test_size=round(arch_fraction * len(targets)), random_state=seed, stratify=targets
        )
    except ValueError as reason:
        why = _too_few(targets, 2, names) or reason
        raise DataError(f"{len(targets)} images cannot be split into two parts: {why}") from reason
    return sorted(weights.tolist()), sorted(architecture.tolist())


def _too_few(targets: np.ndarray, parts: int, names: Sequence[str]) -> str | None:
    """Name the classes with fewer images than there are parts; `None` if there are none."""
    classes, counts = np.unique(targets, return_counts=True)
    sizes = [(names[c] if c < len(names) else c, n) for c, n in zip(classes.tolist(), counts.tolist(), strict=True)]
    rare = [f"{name} ({count})" for name, count in sizes if count < parts]
    more = f" and {len(rare) - _LISTED} more" if len(rare) > _LISTED else ""
    listed = clipped(", ".join(rare[:_LISTED]))
    return f"these classes have too few: {listed}{more}; add images, or remove the classes" if rare else None


def _targets(labels: Sequence[int], fractions: Sequence[tuple[str, float]]) -> np.ndarray:
    targets = np.asarray(labels)
    if len(set(labels)) < 2:
        raise DataError(f"the {len(labels)} images have {len(set(labels))} class, and at least 2 are needed")
    for name, fraction in fractions:
        if round(fraction * len(targets)) < 1:
            raise DataError(f"{name} {fraction:g} of {len(targets)} images is none; choose a larger one")
    return targets
