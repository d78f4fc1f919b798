"""The recipe of a search: its settings, with their checks, defaults and descriptions.

A recipe is a YAML file. Parameters from NNI's manager, or `key=value` on the command line, override its values. This
module imports neither NNI nor torch, so that a recipe is checked before anything slow starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ..decoding.budget import BudgetRequest
from ..errors import RecipeError, unknown_name
from ..files.settings import (
    Count,
    Devices,
    Epochs,
    NumberFrom0,
    PartBelow1,
    PartUpTo1,
    Pixels,
    Positive,
    ProperPart,
    Seed,
    Settings,
    Threads,
    WholeFrom0,
    WidthMult,
    Workers,
)
from ..strategies.arch_settings import ArchSettings
from .target_description import DEFAULT_TARGETS, TargetDescription

if TYPE_CHECKING:
    from .targets import Target

STRATEGIES = ("proxyless", "darts", "gumbel_darts", "enas", "random", "nni_proxyless_builtin")


class Recipe(Settings, ArchSettings):
    """All settings of one search. Relative paths start from the recipe's folder."""

    target: str = "cpu_torch"
    """Name of the hardware target, one of `targets`."""

    space: str = "mobilenetv2_digits"
    """Name of a space of this package, or path of a space's YAML file."""

    width_mult: WidthMult | None = None
    """Width multiplier of the networks. Default: the space's own."""

    input_size: Pixels | None = None
    """Image height and width in pixels. Default: the space's own."""

    data: str = "digits"
    """Data set: `digits`, `cifar10`, `cifar100`, `imagefolder` or `arrays`."""

    data_dir: str | None = None
    """Folder of the data set's files; for `arrays`, the path of the `.npz` file. `digits` needs none."""

    download: bool = False
    """Whether torchvision may download CIFAR."""

    arch_fraction: ProperPart = 0.2
    """Fraction of the training images that trains the architecture."""

    held_out_fraction: ProperPart = 0.2
    """Fraction of the training images on which decoded networks are validated. Nothing is trained on them."""

    strategy: str = "proxyless"
    """Search strategy: `proxyless`; one of NNI's, `darts`, `gumbel_darts`, `enas`, `random` or `nni_proxyless_builtin`;
    or `package.module:Class` for any other one-shot strategy."""

    strategy_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of a strategy other than `proxyless`."""

    budget_ms: Positive | None = None
    """Latency budget in milliseconds. The exported network is within the budget, unless `proxyless` has another
    objective than `budget`. Other objectives use the budget as reference latency; without a budget, the reference is
    the expected latency before the search."""

    budget_fraction: PartUpTo1 | None = None
    """Latency budget as a fraction of the largest network's latency."""

    arch_batch_size: Count | None = None
    """Number of images in a batch of architecture steps. Default: `batch_size`."""

    entangle_weights: bool = True
    """Whether the candidates of a layer train the same weights: each uses a part of the largest candidate's weights
    ([design.md](design.md#entangled-weights)). With `false`, each candidate has its own weights, as in the paper."""

    accept_tables: bool = False
    """Whether latency tables are used whatever their quality. Otherwise a bad table is refused
    ([latency.md](latency.md#is-the-table-good)). A doubtful table always gives a warning."""

    share_warmup: bool = True
    """Whether searches with the same warm-up train it only once."""

    epochs: Epochs = 30
    """Number of epochs of the whole search."""

    batch_size: Count = 64
    """Number of images in a batch of weight steps, on each device."""

    learning_rate: Positive = 0.05
    """Initial learning rate of the weights. It falls to 0 along a half cosine."""

    momentum: PartBelow1 = 0.9
    """Momentum of SGD on the weights."""

    weight_decay: NumberFrom0 = 4e-5
    """L2 penalty on the weights."""

    decay_norm_bias: bool = True
    """Whether `weight_decay` also applies to the parameters of norms and to biases."""

    label_smoothing: PartBelow1 = 0.0
    """Label smoothing of the cross-entropy."""

    gradient_clip_val: Positive | None = None
    """Largest norm of the weights' gradients, to which they are clipped. Default: gradients are not clipped."""

    bn_batches: WholeFrom0 = 10
    """Number of batches that re-estimate the batch-norm statistics of a decoded network; 0 keeps those of the
    supernet."""

    seed: Seed = 0
    """Seed of the data split, the initial weights, the order of images and the sampled paths."""

    threads: Threads | None = None
    """Number of threads that torch trains with. Default: torch's own choice."""

    num_workers: Workers = 0
    """Number of processes that load data. With 0, the training process loads the data itself."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Lightning's accelerator."""

    devices: Devices = 1
    """Number of processes that train together, each on its own device."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision: `32-true`, `bf16-mixed` or, on CUDA, `16-mixed`."""

    channels_last: bool | None = None
    """Whether network and images use the memory format channels_last. Default: on the CPU only."""

    targets: dict[str, Any] = Field(default_factory=dict)
    """Hardware targets by name: `{backend: …}` for a target that is measured, `{table: file}` for one with a latency
    table, or both: the table predicts, and the backend measures the networks that are found."""

    @model_validator(mode="after")
    def _check_recipe(self) -> Recipe:
        if self.arch_fraction + self.held_out_fraction >= 1:
            raise ValueError(
                "arch_fraction + held_out_fraction must leave images for the weights, "
                f"got {self.arch_fraction} + {self.held_out_fraction}"
            )
        BudgetRequest.of(self.budget_ms, self.budget_fraction, hard=True)
        has_budget = self.budget_ms is not None or self.budget_fraction is not None
        if self.objective == "budget" and not has_budget:
            raise ValueError("objective budget needs 'budget_ms' in milliseconds, or 'budget_fraction'")
        if self.warmup_epochs + self.finalist_epochs >= self.epochs:
            also = f" and {self.finalist_epochs} 'finalist_epochs'" if self.finalist_epochs else ""
            raise ValueError(
                f"'warmup_epochs' must leave epochs to search in, got {self.warmup_epochs}{also} of {self.epochs}"
            )
        if self.strategy not in STRATEGIES and not _names_a_class(self.strategy):
            raise ValueError(unknown_name("strategy", self.strategy, STRATEGIES) + ", or package.module:Class")
        if self.strategy == "proxyless":
            if self.strategy_args:
                raise ValueError("'strategy_args' are for other strategies; proxyless has keys of its own")
        elif self.objective == "budget":
            raise ValueError(
                f"objective budget is proxyless's own; with strategy {self.strategy} use add_linear or "
                "mul_log, and the tuner LatencyBudget to find the latency_weight that meets a budget"
            )
        elif self.devices > 1:
            raise ValueError(f"strategy {self.strategy} runs on one device, got devices: {self.devices}")
        return self

    def parse_targets(self) -> dict[str, Target]:
        """Return the recipe's hardware targets by name. Without any, they are the two default targets.

        Raises:
            RecipeError: The description of a target is invalid.
        """
        from .targets import Target

        return {name: Target(**vars(found)) for name, found in self.described_targets().items()}

    def chosen_target(self) -> Target:
        """Return the hardware target of this search.

        Raises:
            RecipeError: There is no target with this name. The message lists all targets.
        """
        from .targets import Target

        return Target(**vars(self.described_target()))

    def described_targets(self) -> dict[str, TargetDescription]:
        """Return the descriptions of the targets by name, without importing what measures them.

        Raises:
            RecipeError: The description of a target is invalid.
        """
        described = self.targets or DEFAULT_TARGETS
        return {name: TargetDescription.parse(str(name), value, self.folder) for name, value in described.items()}

    def described_target(self) -> TargetDescription:
        """Return the description of the target of this search.

        Raises:
            RecipeError: There is no target with this name. The message lists all targets.
        """
        targets = self.described_targets()
        if self.target not in targets:
            raise RecipeError(unknown_name("target", self.target, targets))
        return targets[self.target]

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        """Return the content of a recipe file.

        Args:
            absolute: Whether paths are made absolute, so that the recipe has the same meaning in another folder.
        """
        content = super().to_dict(absolute=absolute)
        if absolute:
            if self.data_dir is not None:
                content["data_dir"] = str(self.resolve(self.data_dir).resolve())
            if self.space.endswith((".yml", ".yaml")):
                content["space"] = str(self.resolve(self.space).resolve())
            for target in content["targets"].values():
                if isinstance(target, dict) and isinstance(target.get("table"), str):
                    target["table"] = str(self.resolve(target["table"]).resolve())
        return content


def _names_a_class(strategy: str) -> bool:
    module, _, name = strategy.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))
