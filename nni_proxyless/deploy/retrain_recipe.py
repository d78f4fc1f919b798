"""The recipe of a retraining: every setting, its default, and the checks on it. It imports neither NNI nor torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError
from ..files import read_mapping
from ..settings import Settings

# What a retraining takes from the recipe of the search, so that it uses the same data, split the same way.
_OF_THE_SEARCH = ("space", "data", "data_dir", "download", "arch_fraction", "held_out_fraction")


@dataclass(frozen=True)
class RetrainRecipe(Settings):
    """All settings of one retraining. Paths are relative to the recipe's folder.

    Attributes:
        architecture: An architecture file, a published network such as `proxyless_mobile`, or `mobilenet_v2_0.75`.
        space: Space whose image size, stem, stages and head `mobilenet_v2_0.75` takes; ImageNet's by default.
        inherit: File of weights to begin with, such as the `weights.pt` of a search; none trains from scratch.
        data: `digits`, `cifar10`, `cifar100`, `imagefolder` or `arrays`.
        data_dir: Folder of the data's files, of `arrays` the `.npz` file; `digits` needs none.
        download: Whether torchvision may download CIFAR.
        arch_fraction: Of the search: where its held-out part lies depends on it. Its images train the weights here.
        held_out_fraction: Part that no search has learnt from; validates.
        split_seed: Seed of the search, which drew the parts.
        epochs: Epochs in all.
        warmup_epochs: Epochs in which the learning rate rises from 0.
        batch_size: Images in a batch.
        learning_rate: At the start of the cosine.
        momentum: Of SGD (Nesterov).
        weight_decay: L2 penalty on the weights.
        decay_norm_bias: Whether it holds for norms and biases too.
        label_smoothing: Of the cross-entropy.
        ema_decay: Of the moving average of the weights that is validated and kept; 0 for none; from the number of steps
            by default.
        mixup_alpha: Of mixup (Zhang et al. 2018); 0 for none.
        cutmix_alpha: Of cutmix (Yun et al. 2019); 0 for none. With both, each batch draws one of them.
        gradient_clip_val: Clips the gradients; none by default.
        seed: Of the initial weights and the order of images.
        threads: Threads that torch trains with; its own choice by default.
        num_workers: Processes that load data.
        accelerator: Lightning's accelerator.
        precision: `32-true`, `bf16-mixed` or, on CUDA, `16-mixed`.
        channels_last: Memory format; by default on the CPU only.
    """

    architecture: str = "architecture.json"
    space: str | None = None
    inherit: str | None = None
    data: str = "digits"
    data_dir: str | None = None
    download: bool = False
    arch_fraction: float = 0.2
    held_out_fraction: float = 0.2
    split_seed: int = 0
    epochs: int = 60
    warmup_epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 4e-5
    decay_norm_bias: bool = False
    label_smoothing: float = 0.1
    ema_decay: float | None = None
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    gradient_clip_val: float | None = None
    seed: int = 0
    threads: int | None = None
    num_workers: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool | None = None

    @property
    def devices(self) -> int:
        """Retraining runs on one device."""
        return 1

    @classmethod
    def for_architecture(cls, architecture: str, settings: Mapping[str, Any], recipe: Path | None) -> RetrainRecipe:
        """The recipe for an architecture: a file's, else what the search says that found it, else the defaults.

        Args:
            architecture: An architecture file, the folder it lies in, or a name.
            settings: Key to value; these come before all others.
            recipe: A recipe's YAML.

        Raises:
            RecipeError: A key is unknown, a type is wrong or a value out of range.
        """
        path = Path(architecture).expanduser()
        path = path / "architecture.json" if path.is_dir() else path
        named = {**settings, "architecture": str(path.resolve()) if path.exists() else architecture}
        if recipe is not None:
            return cls.load(recipe, named)
        beside = path.parent / "recipe.yml"
        if path.is_file() and beside.is_file():
            return cls.from_dict({**of_search(beside), **named}, beside.resolve().parent, f"recipe {beside}")
        return cls.from_dict(named)

    def _check(self, source: str) -> None:
        self.check_above_0(source, "learning_rate", "gradient_clip_val", "epochs", "batch_size", "threads")
        self.check_from_0(
            source, "weight_decay", "warmup_epochs", "seed", "split_seed", "num_workers", "mixup_alpha", "cutmix_alpha"
        )
        self.check_from_0_below_1(source, "momentum", "label_smoothing", "ema_decay")
        self.check_between_0_and_1(source, "arch_fraction", "held_out_fraction")
        if self.arch_fraction + self.held_out_fraction >= 1:
            raise RecipeError(
                f"{source}: arch_fraction + held_out_fraction must leave images to train on, "
                f"got {self.arch_fraction} + {self.held_out_fraction}"
            )
        if self.warmup_epochs >= self.epochs:
            raise RecipeError(
                f"{source}: 'warmup_epochs' must be fewer than 'epochs', got {self.warmup_epochs} of {self.epochs}"
            )

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        content = super().to_dict(absolute=absolute)
        if absolute:
            for key in ("data_dir", "inherit"):
                if content[key] is not None:
                    content[key] = str(self.resolve(content[key]).resolve())
            if self.space is not None and self.space.endswith((".yml", ".yaml")):
                content["space"] = str(self.resolve(self.space).resolve())
            if self.architecture_file is not None:
                content["architecture"] = str(self.architecture_file.resolve())
        return content

    @property
    def architecture_file(self) -> Path | None:
        """The architecture's file, where it is not a name."""
        path = self.resolve(self.architecture)
        return path if path.suffix == ".json" or path.exists() else None


def of_search(path: Path) -> dict[str, Any]:
    """What a retraining takes from the `recipe.yml` of a search's (or an earlier retraining's) results.

    Raises:
        RecipeError: The file cannot be read.
    """
    content = read_mapping(path, "recipe", RecipeError)
    found = {key: content[key] for key in _OF_THE_SEARCH if key in content}
    seed = content.get("split_seed", content.get("seed"))
    return found if seed is None else {**found, "split_seed": seed}
