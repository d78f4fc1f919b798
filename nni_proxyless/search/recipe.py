"""The recipe of a search: its settings, with their checks, defaults and descriptions.

A recipe is a YAML file. Parameters from NNI's manager, or `key=value` on the command line, override its values. This
module imports neither NNI nor torch, so that a recipe is checked before anything slow starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ..data.image_settings import ImageSettings
from ..decoding.budget import BudgetRequest
from ..decoding.budgets import QUANTITIES, Limit, check_names, parse_budgets
from ..errors import RecipeError, shown, unknown_name
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
    WidthMult,
    Workers,
)
from ..strategies.arch_settings import ArchSettings
from .replaced_forms import replaced_forms
from .target_description import DEFAULT_TARGETS, TargetDescription

if TYPE_CHECKING:
    from .targets import Target

STRATEGIES = ("proxyless", "darts", "gumbel_darts", "enas", "random", "nni_proxyless_builtin")


class Recipe(Settings, ArchSettings, ImageSettings):
    """All settings of one search. Relative paths start from the recipe's folder."""

    target: str = "cpu_torch"
    """Name of the hardware target, one of `targets`."""

    space: str = "mobilenetv2_digits"
    """Name of a space of this package, or path of a space's YAML file."""

    width_mult: WidthMult | None = None
    """Width multiplier of the networks. Default: the space's own."""

    input_size: Size = None
    """Image height and width in pixels: a number for a square, else `[height, width]`. Default: the space's own."""

    input_channels: Channels | None = None
    """Channels of an image: 3 for colours, 1 for grey. Default: the space's own."""

    data: str = "digits"
    """Data set: `digits`, `cifar10`, `cifar100`, `imagefolder`, `arrays`, `torchvision:Name`, or
    `package.module:function` ([your_own.md](your_own.md#data))."""

    data_dir: str | None = None
    """Folder of the data set's files; for `arrays`, the path of the `.npz` file. `digits` needs none."""

    download: bool = False
    """Whether torchvision may download its data set."""

    arch_fraction: ProperPart = 0.2
    """Fraction of the training images that trains the architecture."""

    held_out_fraction: ProperPart = 0.2
    """Fraction of the training images that are held out to validate decoded networks. Nothing is trained on them."""

    strategy: str = "proxyless"
    """Search strategy: `proxyless`, one of NNI's strategies (`darts`, `gumbel_darts`, `enas`, `random` or
    `nni_proxyless_builtin`), or `package.module:Class` for any other one-shot strategy."""

    strategy_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the strategy, if it is not `proxyless`."""

    budget_ms: Positive | None = None
    """Latency budget in milliseconds. According to the latency table, the exported network is within the budget. If
    `proxyless` has another objective than `budget`, the budget is only its reference latency. Without a budget, the
    reference is the expected latency before the search."""

    budget_fraction: PartUpTo1 | None = None
    """Latency budget as a fraction of the largest network's latency."""

    budgets: dict[str, Any] = Field(default_factory=dict)
    """Limits by name. The name is that of a target, whose limit is in milliseconds, or of a quantity: `parameters`,
    `multiply_adds`, `file_size`, `file_size_int8`, `peak_memory` or `peak_memory_int8`. A limit is a number, or a
    string such as `256KiB`. A percentage such as `60%` is a fraction of the largest network's value. The exported
    network is within all limits ([budgets.md](budgets.md))."""

    arch_batch_size: Count | None = None
    """Number of images in a batch of architecture steps. Default: `batch_size`."""

    entangle_weights: bool = True
    """Whether the candidates of a layer share their weights: each uses a part of the largest candidate's weights
    ([design.md](design.md#entangled-weights)). With `false`, each candidate has its own weights, as in the paper."""

    accept_tables: bool = False
    """Whether a bad latency table is used instead of refused ([latency.md](latency.md#is-the-table-good)). A doubtful
    table always causes a warning."""

    share_search: bool = False
    """Whether recipes that differ only in target and budgets share one search, whose loss does not depend on a device.
    For each target and budget, the search is decoded and its own finalists are compared
    ([budgets.md](budgets.md#one-search-for-all))."""

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
    """Norm to which the weights' gradients are clipped. Default: gradients are not clipped."""

    bn_batches: WholeFrom0 = 10
    """Number of batches from which the batch-norm statistics of a decoded network are estimated again; 0 keeps those of
    the supernet."""

    seed: Seed = 0
    """Seed of the data split, the initial weights, the order of images and the sampled paths."""

    threads: Threads | None = None
    """Number of threads of torch during the training. Default: torch's own choice."""

    num_workers: Workers = 0
    """Number of processes that load data. With 0, the training process loads the data itself."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Lightning's accelerator."""

    devices: Devices = 1
    """Number of processes on each node that train together, each on its own device."""

    num_nodes: Nodes = 1
    """Number of machines that search together, all with the same results folder
    ([retrain.md](retrain.md#several-devices-and-nodes)). They do not share warm-ups with other searches."""

    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Lightning's precision: `32-true`, `bf16-mixed` or, on CUDA, `16-mixed`."""

    channels_last: bool | None = None
    """Whether the network and the images use the memory format channels_last. Default: on the CPU only."""

    targets: dict[str, Any] = Field(default_factory=dict)
    """Hardware targets by name. `{backend: …}` measures the target, and `{table: file}` gives its latency table. With
    both, the table predicts, and the backend measures the networks that are found."""

    @model_validator(mode="after")
    def _check_recipe(self) -> Recipe:
        if self.arch_fraction + self.held_out_fraction >= 1:
            raise ValueError(
                "arch_fraction + held_out_fraction must leave images for the weights, "
                f"got {self.arch_fraction} + {self.held_out_fraction}"
            )
        BudgetRequest.of(self.budget_ms, self.budget_fraction, hard=True)
        self._check_budgets()
        if self.objective == "budget" and not self.has_budget:
            raise ValueError("objective budget needs 'budget_ms' in milliseconds, 'budget_fraction' or 'budgets'")
        if self.warmup_epochs + self.finalist_epochs >= self.epochs:
            also = f" and {self.finalist_epochs} 'finalist_epochs'" if self.finalist_epochs else ""
            raise ValueError(
                f"'warmup_epochs' must leave epochs to search in, got {self.warmup_epochs}{also} of {self.epochs}"
            )
        searching = self.epochs - self.warmup_epochs - self.finalist_epochs
        if self.sharpen_epochs is not None and self.sharpen_epochs > searching:
            raise ValueError(
                f"'sharpen_epochs' must be at most the number of epochs that train the architecture, which is "
                f"{searching}, got {self.sharpen_epochs}"
            )
        if self.strategy not in STRATEGIES and not _names_a_class(self.strategy):
            form = "package.module:Class, such as my_package.search:MyStrategy"
            if ":" in self.strategy:
                raise ValueError(f"'strategy' must have the form {form}, got {shown(self.strategy)}")
            raise ValueError(unknown_name("strategy", self.strategy, STRATEGIES) + f", or {form}")
        if self.finalist_steps and (
            self.share_search or (self.strategy in STRATEGIES and self.strategy != "proxyless")
        ):
            with_what = "share_search: true" if self.share_search else f"strategy {self.strategy}"
            raise ValueError(f"finalist_steps needs proxyless without share_search, got {with_what}; leave it out")
        if self.strategy == "proxyless":
            if self.share_search and (self.ranks > 1 or self.objective is not None):
                raise ValueError(
                    "share_search needs devices: 1, and has no device in its loss; leave 'objective' out, "
                    f"got devices: {self.devices}, objective: {self.objective}"
                )
            if self.strategy_args:
                raise ValueError("'strategy_args' are for other strategies; proxyless has its own keys")
        elif self.objective == "budget":
            raise ValueError(
                f"only proxyless supports objective budget; with strategy {self.strategy} use add_linear or "
                "mul_log, and the tuner LatencyBudget to find the latency_weight that meets a budget"
            )
        elif self.share_search:
            raise ValueError(f"share_search needs strategy proxyless, got {self.strategy}")
        elif self.ranks > 1:
            raise ValueError(
                f"strategy {self.strategy} runs on one device, got devices: {self.devices}, num_nodes: {self.num_nodes}"
            )
        return self

    @classmethod
    def replaced_by(cls, before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
        """Return what a source replaces besides its own keys: another form of the budget of the search's target."""
        return replaced_forms({"target": cls.model_fields["target"].default, **before}, given)

    @property
    def ranks(self) -> int:
        """Number of processes that search together."""
        return self.devices * self.num_nodes

    @property
    def has_budget(self) -> bool:
        """Whether there is any budget."""
        return self._has_own_budget or bool(self.budgets)

    @property
    def keeps_budget(self) -> bool:
        """Whether the search has to keep its latency budget, rather than taking it as the objective's reference."""
        return self.strategy != "proxyless" or self.objective in (None, "budget")

    def _check_budgets(self) -> None:
        limits = parse_budgets(self.budgets)
        check_names(limits, self.targets or DEFAULT_TARGETS)
        if self.target in self.budgets and self._has_own_budget:
            raise ValueError(f"target {self.target} has two budgets, one of them in 'budgets'; give one")
        if self.budgets and self.strategy == "proxyless" and self.objective not in (None, "budget"):
            raise ValueError(f"'budgets' need the objective budget, got {self.objective}; leave 'objective' out")

    def limits(self) -> tuple[Limit, ...]:
        """Return all budgets, that of `budget_ms` or `budget_fraction` as one of the search's own target."""
        own = (Limit(self.target, self.budget_ms, self.budget_fraction),) if self._has_own_budget else ()
        return (*own, *parse_budgets(self.budgets))

    @property
    def _has_own_budget(self) -> bool:
        return self.budget_ms is not None or self.budget_fraction is not None

    @property
    def other_targets(self) -> list[str]:
        """Names of the targets that have a budget, apart from the search's own target."""
        return [name for name in self.budgets if name not in QUANTITIES and name != self.target]

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
