"""The recipe of a retraining: all settings, their defaults and their checks. Imports neither NNI nor torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from ..data.image_settings import ImageSettings
from ..data.place import check_place
from ..errors import InputError, RecipeError, clipped, shown, unknown_name
from ..files import results_folder
from ..files.layers import Layer
from ..files.reading import read_mapping, user_path
from ..files.settings import (
    Channels,
    Count,
    Devices,
    Epochs,
    Nodes,
    NumberFrom0,
    PartBelow1,
    PartUpTo1,
    Positive,
    ProperPart,
    Seed,
    Settings,
    Size,
    Threads,
    WholeFrom0,
    Workers,
)
from ..network.architecture import Architecture
from ..network.weights import check_file, weights_file
from .retrain_sources import check_names_no_function as check_names_no_function
from .retrain_sources import load_architecture as load_architecture
from .retrain_sources import shorter_defaults

# Keys that a retraining copies from the recipe of the search, so that it uses the same data with the same split.
_OF_THE_SEARCH = (
    "space", "data", "data_dir", "download", "arch_fraction", "held_out_fraction", *ImageSettings.model_fields,
)  # fmt: skip


class RetrainRecipe(Settings, ImageSettings):
    """All settings of one retraining. Relative paths start from the recipe's folder."""

    architecture: str = results_folder.ARCHITECTURE
    """Architecture file, or the name of a network: a published one such as `proxyless_mobile`, or MobileNetV2 with a
    width multiplier such as `mobilenet_v2_0.75`."""

    space: str | None = None
    """Space that gives a network such as `mobilenet_v2_0.75` its image size, channels, stem, stages and head. By
    default, the stem, stages and head are those for ImageNet. Size and channels are those of the data's images, or 224
    and 3 for photographs."""

    input_size: Size = None
    """Image height and width in pixels: a number for a square, else `[height, width]`. Default: the architecture's."""

    input_channels: Channels | None = None
    """Channels of an image: 3 for colours, 1 for grey. Default: the architecture's."""

    inherit: str | None = None
    """File with the initial weights, or the folder of a search or retraining. The file may be a `weights.pt`, a
    `checkpoint.ckpt` or another program's state dict. The checkpoint of a search has the weights of every network of
    its space. The classifier is left out if the classes differ. Without a file, the network is trained from scratch."""

    fine_tune: bool = False
    """Whether inherited weights are fine-tuned: the defaults become 10 `epochs` without a warm-up and a
    `learning_rate` of 0.005."""

    freeze_batch_norm: bool = False
    """Whether batch-norms keep their inherited statistics, scales and offsets."""

    teacher: str | None = None
    """Larger network from whose outputs the network learns, in addition to the labels: the folder of a retraining, or
    the `checkpoint.ckpt` of a search, which stands for the largest network of its supernet."""

    distillation_weight: PartUpTo1 = 0.5
    """Weight w of the teacher's outputs in the loss; the weight of the labels is 1 - w."""

    distillation_temperature: Positive = 4.0
    """Temperature by which the logits of both networks are divided (Hinton et al. 2015)."""

    data: str = "digits"
    """Data set: `digits`, `cifar10`, `cifar100`, `imagefolder`, `arrays`, `torchvision:Name`, or
    `package.module:function` ([your_own.md](your_own.md#data))."""

    data_dir: str | None = None
    """Folder of the data set, or the `.npz` file of `arrays`; not needed for `digits`."""

    download: bool = False
    """Whether torchvision may download its data set."""

    arch_fraction: ProperPart = 0.2
    """Fraction of the images that trained the architecture in the search. It must equal that of the search, because the
    split depends on it. In the retraining, these images train the weights."""

    held_out_fraction: ProperPart = 0.2
    """Fraction of the images to validate on. No search has learnt from them."""

    split_seed: Seed = 0
    """Seed of the split; it must equal the `seed` of the search."""

    epochs: Epochs = 60
    """Number of epochs, including the warm-up."""

    warmup_epochs: WholeFrom0 = 3
    """Number of epochs at the start in which the learning rate rises from 0. If `epochs` is 3 or less, the default is
    lower."""

    batch_size: Count = 64
    """Number of images in a batch."""

    learning_rate: Positive = 0.05
    """Learning rate after the warm-up, at the start of the cosine decay."""

    momentum: PartBelow1 = 0.9
    """Nesterov momentum of SGD."""

    weight_decay: NumberFrom0 = 4e-5
    """L2 penalty on the weights."""

    decay_norm_bias: bool = False
    """Whether the weight decay also applies to normalisation parameters and biases."""

    label_smoothing: PartBelow1 = 0.1
    """Label smoothing of the cross-entropy."""

    ema_decay: PartBelow1 | None = None
    """Decay of the moving average of the weights that is validated and saved; 0 turns it off. By default it is
    derived from the number of steps."""

    mixup_alpha: NumberFrom0 = 0.0
    """Parameter α of mixup (Zhang et al. 2018); 0 turns it off."""

    cutmix_alpha: NumberFrom0 = 0.0
    """Parameter α of cutmix (Yun et al. 2019); 0 turns it off. With both mixup and cutmix, each batch gets one at
    random."""

    gradient_clip_val: Positive | None = None
    """Norm to which the gradients are clipped. By default, they are not clipped."""

    seed: Seed = 0
    """Seed of the initial weights and of the order of images."""

    threads: Threads | None = None
    """Number of threads of torch during the training; torch's own choice by default."""

    num_workers: Workers = 0
    """Number of processes that load data. With 0, the training process loads the data itself."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Lightning's accelerator."""

    devices: Devices = 1
    """Number of processes on each node that train together, each on its own device with its own `batch_size` images."""

    num_nodes: Nodes = 1
    """Number of machines that train together, all with the same results folder
    ([retrain.md](retrain.md#several-devices-and-nodes))."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision: `32-true`, `bf16-mixed` or, on CUDA, `16-mixed`."""

    channels_last: bool | None = None
    """Whether tensors use the memory format channels-last; by default only on the CPU."""

    @property
    def ranks(self) -> int:
        """Number of processes that train together."""
        return self.devices * self.num_nodes

    @classmethod
    def for_architecture(
        cls, architecture: str, settings: Mapping[str, Any], recipe: Path | None, source: str = "given values"
    ) -> RetrainRecipe:
        """Make the recipe for an architecture.

        The settings come from the recipe file if one is given, else from the `recipe.yml` next to the architecture
        (only the data and their split), else from the defaults.

        Args:
            architecture: Architecture file, its folder, or the name of a network.
            settings: Settings that override all others.
            recipe: Path of a recipe file.
            source: Name of the source of `settings`, for messages.

        Raises:
            RecipeError: A key is unknown, a value has the wrong type or is out of range, or a file cannot be read.
        """
        layers, folder = cls.layers_of(architecture, settings, recipe, source)
        return cls.from_layers(layers, folder)

    @classmethod
    def layers_of(
        cls, architecture: str, settings: Mapping[str, Any], recipe: Path | None, source: str
    ) -> tuple[list[Layer], Path | None]:
        """Return where the settings for an architecture come from; see `for_architecture`.

        Returns:
            The sources, and the folder that relative paths start from.
        """
        path = user_path(architecture, "architecture", RecipeError)
        path = path / results_folder.ARCHITECTURE if path.is_dir() else path
        if "architecture" in settings:
            raise RecipeError(
                f"the architecture is given twice, as {clipped(architecture)} and as {shown(settings['architecture'])}"
            )
        named = {**settings, "architecture": str(path.resolve()) if path.exists() else architecture}
        given = Layer(source, named)
        beside = path.parent / results_folder.RECIPE
        if recipe is not None:
            return [cls.file_layers(recipe, {}, source)[0], given], Path(recipe).resolve().parent
        if path.is_file() and beside.is_file():
            if "data" not in settings:
                check_names_no_function(beside, "data={data} runs it")
            same = not {"data", "data_dir"} & settings.keys()
            copied = Layer("recipe of the search", of_search(beside, recorded=same), f"recipe {beside}")
            return [copied, given], beside.resolve().parent
        return [given], None

    def notes(self) -> dict[str, str]:
        """Explain the settings that are `null`: the value that is used, or what it is derived from."""
        notes = {
            "space": "that of the architecture file, or the one for ImageNet",
            "inherit": "trained from scratch",
            "ema_decay": "derived from the number of steps",
            "gradient_clip_val": "gradients are not clipped",
            "threads": "torch's own choice",
            "channels_last": "on the CPU only",
            "input_size": "that of the architecture, or of the data",
            "input_channels": "those of the architecture, or of the data",
            "data_dir": "none; the data set needs no files",
            "resize": "stretch up to 64 pixels, cover above",
            "crop": "0.875 with cover, 1 with stretch",
            "mean": "those of the data set",
            "std": "those of the data set",
            "augmentation": "that of the data set",
            "flip": "as suits the data set",
            "class_weights": "all classes weigh the same",
            "teacher": "none",
        }
        return {key: text for key, text in notes.items() if getattr(self, key) is None}

    @model_validator(mode="before")
    @classmethod
    def _shorten(cls, values: Any) -> Any:
        """Let the keys that fine-tuning or few epochs shorten have other defaults."""
        return {**shorter_defaults(values), **values} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_recipe(self) -> RetrainRecipe:
        if self.arch_fraction + self.held_out_fraction >= 1:
            raise ValueError(
                "arch_fraction + held_out_fraction must leave images to train on, "
                f"got {self.arch_fraction} + {self.held_out_fraction}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"'warmup_epochs' must be fewer than 'epochs', got {self.warmup_epochs} of {self.epochs}")
        for key in ("fine_tune", "freeze_batch_norm"):
            if getattr(self, key) and self.inherit is None:
                raise ValueError(f"'{key}' needs 'inherit', the weights to begin with; on the command line --inherit")
        return self

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        content = super().to_dict(absolute=absolute)
        if absolute:
            for key in ("data_dir", "inherit", "teacher"):
                if content[key] is not None:
                    content[key] = str(self.resolve(content[key]).resolve())
            if self.space is not None and self.space.endswith((".yml", ".yaml")):
                content["space"] = str(self.resolve(self.space).resolve())
            if self.architecture_file is not None:
                content["architecture"] = str(self.architecture_file.resolve())
        return content

    def check_output(self, output: Path) -> None:
        """Check that a retraining does not replace the results of the search that it trains from.

        Args:
            output: Folder of the retraining's results.

        Raises:
            InputError: The folder holds the architecture itself.
        """
        source = self.architecture_file
        if source is not None and source.resolve().parent == output.resolve():
            raise InputError(
                f"{output} holds the architecture to train, and its results would be replaced; choose another folder"
            )

    def check_files(self) -> Architecture:
        """Check the architecture, the place of the data and the inherited weights, as far as possible without torch.

        Returns:
            The architecture.

        Raises:
            InputError: One of them is missing or invalid.
        """
        found = load_architecture(self)
        data_dir = None if self.data_dir is None else self.resolve(self.data_dir)
        check_place(self.data, found.require_spec().input_shape, data_dir, self.download)
        if self.inherit is not None:
            check_file(weights_file(self.resolve(self.inherit)))
        if self.teacher is not None:
            path = self.resolve(self.teacher)
            whole = path.name == results_folder.CHECKPOINT
            check_file(path if whole else weights_file(path if path.is_dir() else path.parent))
        return found

    @property
    def architecture_file(self) -> Path | None:
        """Path of the architecture file; `None` if `architecture` is the name of a network."""
        path = self.resolve(self.architecture)
        return path if path.suffix == ".json" or os.path.exists(path) else None


def of_search(path: Path, recorded: bool = True) -> dict[str, Any]:
    """Read the settings that a retraining copies from the `recipe.yml` of a search or of an earlier retraining.

    Args:
        path: Path of the recipe.
        recorded: Whether mean and standard deviation of the images are those that were recorded beside the recipe, if
            they were.

    Raises:
        RecipeError: The file cannot be read, or is not a recipe.
        DataError: What was recorded cannot be read.
    """
    from ..search.recipe import Recipe

    content = read_mapping(path, "recipe", RecipeError)
    keys = {*Recipe.keys(), *RetrainRecipe.keys()}
    for key in content:
        if key not in keys:
            raise RecipeError(f"recipe {path}: {unknown_name('key', key, keys)}")
    found = {key: content[key] for key in _OF_THE_SEARCH if key in content}
    if recorded and (path.parent / results_folder.PREPROCESSING).is_file():
        from ..data.preprocessing_file import read_preprocessing

        known = read_preprocessing(path.parent)
        if known is not None and known[0].known:
            found |= {"mean": list(known[0].mean), "std": list(known[0].std)}
    seed = content.get("split_seed", content.get("seed"))
    return found if seed is None else {**found, "split_seed": seed}
