"""The images that an export is checked and calibrated with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..network.architecture import Architecture
from .model_input import ModelInput


@dataclass(frozen=True)
class Images:
    """Images to check and calibrate an export with.

    Attributes:
        check: Images that the exported model is run on, of shape (images, channels, height, width).
        labels: Classes of the `check` images, of shape (images,); `None` if they are not classes of the network.
        calibration: Images that the scales of int8 quantisation are calibrated on.
        source: Description of the images' source.
        of_the_data: Whether these are images of the data that the network was trained on. Others cannot calibrate.
        about: Preprocessing of the images and names of the classes; `None` if they are not known.
    """

    check: Tensor
    labels: Tensor | None
    calibration: Tensor
    source: str
    of_the_data: bool = True
    about: ModelInput | None = None

    @classmethod
    def random(cls, shape: tuple[int, int, int], count: int = 32) -> Images:
        """Random noise images, `count` of each kind. They suffice to compare two models, but not to calibrate one."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * count, *shape, generator=generator)
        return cls(noise[:count], None, noise[count:], "random images", of_the_data=False)


def load_images(architecture: Architecture, recipe: Path, count: int) -> Images:
    """Load images of a recipe's data set: held-out images to check with, training images to calibrate with.

    Args:
        architecture: Architecture of the network, which determines the shape of the images.
        recipe: Path of the `recipe.yml` of a search or a retraining; without such a file the images are random.
        count: Maximum number of images of each kind.

    Raises:
        InputError: The recipe or its data are invalid.
    """
    spec = architecture.require_spec()
    if not recipe.is_file():
        return Images.random(spec.input_shape, min(count, 32))
    from .retrain import load_recipe_splits
    from .retrain_recipe import RetrainRecipe, of_search

    settings = RetrainRecipe.from_dict(of_search(recipe), recipe.resolve().parent, f"recipe {recipe}")
    splits = load_recipe_splits(settings, spec)
    check = [splits.held_out[i] for i in _spread(len(splits.held_out), count)]
    calibration = [splits.statistics[i][0] for i in _spread(len(splits.statistics), count)]
    labels = None if spec.classes != splits.num_classes else torch.tensor([int(label) for _, label in check])
    return Images(
        torch.stack([image for image, _ in check]),
        labels,
        torch.stack(calibration),
        f"held-out images of {settings.data}",
        about=None if labels is None else ModelInput(splits.preprocessing, splits.class_names),
    )


def _spread(available: int, count: int) -> list[int]:
    """At most `count` indices, spread evenly because data sets are often sorted by class."""
    return sorted({i * available // count for i in range(count)} if count < available else range(available))
