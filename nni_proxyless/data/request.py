"""Request for the data of a search or a retraining, and the loaded data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .augmentation import Augmentation
from .image_settings import ImageSettings
from .preprocessing import Preprocessing, preprocessing_for

ImageDataset = Dataset[tuple[Tensor, Any]]
Statistics = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Request:
    """Description of the data to load, and of the network that uses them.

    Attributes:
        name: Name of the data set.
        input_shape: Channels, height and width of the network's input.
        data_dir: Folder of the data set's files, or path of its file.
        download: Whether torchvision may download it.
        settings: Settings of the images.
        folder: Folder of the recipe, in which the module of a function is looked for; `None` for no such folder.
    """

    name: str
    input_shape: tuple[int, int, int]
    data_dir: Path | None = None
    download: bool = False
    settings: ImageSettings = field(default_factory=ImageSettings)
    folder: Path | None = None

    def preprocessing(self, statistics: Statistics, known: bool = True) -> Preprocessing:
        """Return the settings' preprocessing, with mean and standard deviation of the data as defaults."""
        chosen = self.settings
        return preprocessing_for(
            self.input_shape,
            statistics[0] if chosen.mean is None else chosen.mean,
            statistics[1] if chosen.std is None else chosen.std,
            resize=chosen.resize,
            crop=chosen.crop,
            interpolation=chosen.interpolation,
            known=known,
        )

    def augmentation(self, directed: bool = False) -> Augmentation:
        """Return the settings' augmentation; `directed` images are not mirrored by default."""
        flip = self.settings.flip
        return Augmentation(self.settings.augmentation or "standard", not directed if flip is None else flip)


@dataclass(frozen=True)
class DataSource:
    """A training set before it is split.

    Attributes:
        train: Training images with augmentation.
        plain: The same images in the same order, without augmentation.
        labels: Class of each image.
        num_classes: Number of classes.
        test: The data set's own test set, which is never split; `None` if there is none.
        preprocessing: Steps from an image to the network's input.
        class_names: Names of the classes.
        held_out: Images to validate on, if the data set has its own; else `None`, and they are split from the training
            images.
        held_out_labels: Class of each image of `held_out`.
    """

    train: ImageDataset
    plain: ImageDataset
    labels: Sequence[int]
    num_classes: int
    test: ImageDataset | None
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    held_out: ImageDataset | None = None
    held_out_labels: Sequence[int] = ()
