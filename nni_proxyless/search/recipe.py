"""The recipe of a search: every setting, its default, and the checks on it.

A recipe is YAML; the parameters that NNI's manager sends, or `key=value` on the command line, override it. It
imports neither NNI nor torch, so that it is checked before anything slow begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import RecipeError, unknown_name
from ..settings import Settings

if TYPE_CHECKING:
    from .targets import Target

STRATEGIES = ("proxyless", "darts", "gumbel_darts", "enas", "random", "nni_proxyless_builtin")


@dataclass(frozen=True)
class Recipe(Settings):
    """All settings of one search. Paths are relative to the recipe's folder.

    Attributes:
        target: Name of the hardware target, one of `targets`.
        space: Name of a shipped space, or the path of a space's YAML.
        width_mult: Instead of the space's own.
        input_size: Image height and width instead of the space's own.
        data: `digits`, `cifar10`, `cifar100`, `imagefolder` or `arrays`.
        data_dir: Folder of the data's files, of `arrays` the `.npz` file; `digits` needs none.
        download: Whether torchvision may download CIFAR.
        arch_fraction: Part of the training images that trains the architecture.
        held_out_fraction: Part that is held out to judge decoded networks.
        strategy: `proxyless`, NNI's `darts`, `gumbel_darts`, `enas`, `random` or `nni_proxyless_builtin`, or
            `package.module:Class`, a one-shot strategy of NNI's kind.
        strategy_args: Further arguments of a strategy other than proxyless.
        objective: How loss and latency are joined: `budget`, `add_linear` or `mul_log`; `budget` if there is one.
        budget_ms: What the network may take, in milliseconds; for other objectives than `budget` their reference.
        budget_fraction: The same as a part of the largest network's latency.
        latency_weight: How much latency counts (λ of `add_linear`, exponent of `mul_log`); `budget` finds its own.
        arch_gradient: `full`, `two_path` or `reinforce`.
        arch_learning_rate: Rate of Adam on the architecture parameters; by default from the number of their steps.
        arch_beta1: Of that Adam.
        arch_beta2: Of that Adam.
        arch_weight_decay: Of that Adam; 0.001 with `full` and else 0 if not given.
        arch_schedule: `constant` or `cosine` rate.
        arch_update_every: Weight steps for each architecture step; by default 2 with `full`, whose steps take twice
            the time of `two_path`, else 1.
        arch_batch_size: Images in a batch of architecture steps; `batch_size` by default.
        arch_samples: Times that an architecture step of `two_path` or `full` draws paths; its gradient is their mean.
        arch_batch_norm: Statistics that batch-norm uses in architecture steps: of the `batch`, or the `running` ones.
        reinforce_samples: Networks sampled in each step of `reinforce`.
        warmup_epochs: Epochs of weight steps only.
        warmup_sampling: `random` paths in those, or `fair`: the candidates of a layer take turns.
        weight_sampling: Paths of the weight steps after those: `probable`, drawn from their probabilities, or `fair`.
        entangle_weights: Whether the candidates of a layer train the same weights, each a part of the largest's, or
            weights of their own as in the paper.
        share_warmup: Whether searches that agree on all that the warm-up depends on train it once.
        sharpen_epochs: Epochs at the end in which the search is made to decide; with `budget` a quarter by default.
        sharpen_temperature: Temperature of the path probabilities at the end of those.
        prune_below: Paths of less probability are removed for good; none by default.
        finalists: How many of the likeliest networks within the budget are compared at the end; the best is exported.
            By default 64 with `proxyless` and objective `budget`, else 1: none are compared.
        finalist_epochs: Last epochs, in which the architecture parameters stay and only those networks are trained.
        epochs: Epochs in all.
        batch_size: Images in a batch, on each device.
        learning_rate: Of the weights, at the start of a cosine.
        momentum: Of SGD on the weights.
        weight_decay: L2 penalty on the weights.
        decay_norm_bias: Whether it holds for norms and biases too.
        label_smoothing: Of the cross-entropy.
        gradient_clip_val: Clips the gradients of the weights; none by default.
        bn_batches: Batches that re-estimate batch-norm statistics of a decoded network.
        seed: Of the split, the initial weights, the order of images and the sampled paths.
        threads: Threads that torch trains with; its own choice by default.
        num_workers: Processes that load data; 0 keeps it in the trial.
        accelerator: Lightning's accelerator.
        devices: Processes that train together, each on a device of its own.
        precision: `32-true`, `bf16-mixed` or, on CUDA, `16-mixed`.
        channels_last: Memory format; by default on the CPU only.
        targets: Name to `{backend, threads, batch}`, measured here, or `{table: file}`.
    """

    target: str = "cpu_torch"
    space: str = "mobilenetv2_digits"
    width_mult: float | None = None
    input_size: int | None = None
    data: str = "digits"
    data_dir: str | None = None
    download: bool = False
    arch_fraction: float = 0.2
    held_out_fraction: float = 0.2
    strategy: str = "proxyless"
    strategy_args: dict[str, Any] = field(default_factory=dict)
    objective: Literal["budget", "add_linear", "mul_log"] | None = None
    budget_ms: float | None = None
    budget_fraction: float | None = None
    latency_weight: float = 0.1
    arch_gradient: Literal["two_path", "full", "reinforce"] = "full"
    arch_learning_rate: float | None = None
    arch_beta1: float = 0.0
    arch_beta2: float = 0.999
    arch_weight_decay: float | None = None
    arch_schedule: Literal["constant", "cosine"] = "constant"
    arch_update_every: int | None = None
    arch_batch_size: int | None = None
    arch_samples: int = 1
    arch_batch_norm: Literal["batch", "running"] = "batch"
    reinforce_samples: int = 8
    warmup_epochs: int = 0
    warmup_sampling: Literal["random", "fair"] = "random"
    weight_sampling: Literal["probable", "fair"] = "probable"
    entangle_weights: bool = True
    share_warmup: bool = True
    sharpen_epochs: int | None = None
    sharpen_temperature: float = 0.1
    prune_below: float | None = None
    finalists: int | None = None
    finalist_epochs: int = 0
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 4e-5
    decay_norm_bias: bool = True
    label_smoothing: float = 0.0
    gradient_clip_val: float | None = None
    bn_batches: int = 10
    seed: int = 0
    threads: int | None = None
    num_workers: int = 0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool | None = None
    targets: dict[str, Any] = field(default_factory=dict)

    def _check(self, source: str) -> None:
        self.check_above_0(
            source, "budget_ms", "arch_learning_rate", "learning_rate", "width_mult", "gradient_clip_val",
            "input_size", "arch_update_every", "arch_batch_size", "epochs", "batch_size", "bn_batches", "threads",
            "arch_samples", "sharpen_temperature", "devices", "finalists",
        )  # fmt: skip
        self.check_from_0(
            source, "latency_weight", "weight_decay", "arch_weight_decay", "warmup_epochs", "sharpen_epochs", "seed",
            "num_workers", "finalist_epochs",
        )  # fmt: skip
        self.check_from_0_below_1(source, "momentum", "label_smoothing", "arch_beta1", "arch_beta2")
        self.check_between_0_and_1(source, "arch_fraction", "held_out_fraction", "prune_below")
        if self.arch_fraction + self.held_out_fraction >= 1:
            raise RecipeError(
                f"{source}: arch_fraction + held_out_fraction must leave images for the weights, "
                f"got {self.arch_fraction} + {self.held_out_fraction}"
            )
        for key in ("budget_fraction", "sharpen_temperature"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise RecipeError(f"{source}: '{key}' must be above 0 and at most 1, got {value}")
        if self.budget_ms is not None and self.budget_fraction is not None:
            raise RecipeError(f"{source}: give 'budget_ms' or 'budget_fraction', not both")
        if self.objective == "budget" and self.budget_ms is None and self.budget_fraction is None:
            raise RecipeError(f"{source}: objective budget needs 'budget_ms' in milliseconds, or 'budget_fraction'")
        if self.reinforce_samples < 2:
            raise RecipeError(f"{source}: 'reinforce_samples' must be at least 2, got {self.reinforce_samples}")
        if self.warmup_epochs + self.finalist_epochs >= self.epochs:
            also = f" and {self.finalist_epochs} 'finalist_epochs'" if self.finalist_epochs else ""
            raise RecipeError(
                f"{source}: 'warmup_epochs' must leave epochs to search in, "
                f"got {self.warmup_epochs}{also} of {self.epochs}"
            )
        if self.strategy not in STRATEGIES and not _names_a_class(self.strategy):
            raise RecipeError(
                f"{source}: " + unknown_name("strategy", self.strategy, STRATEGIES) + ", or package.module:Class"
            )
        if self.strategy == "proxyless":
            if self.strategy_args:
                raise RecipeError(f"{source}: 'strategy_args' are for other strategies; proxyless has keys of its own")
        elif self.objective == "budget":
            raise RecipeError(
                f"{source}: objective budget is proxyless's own; with strategy {self.strategy} use add_linear or "
                "mul_log, and the tuner LatencyBudget to find the latency_weight that meets a budget"
            )
        elif self.devices > 1:
            raise RecipeError(f"{source}: strategy {self.strategy} runs on one device, got devices: {self.devices}")

    def parse_targets(self) -> dict[str, Target]:
        """Name to target: the recipe's own, or the two of this machine.

        Raises:
            RecipeError: A target is not well formed.
        """
        from .targets import DEFAULT_TARGETS, Target

        described = self.targets or DEFAULT_TARGETS
        return {name: Target.parse(str(name), value, Path(self.folder)) for name, value in described.items()}

    def chosen_target(self) -> Target:
        """The target that this search is for.

        Raises:
            RecipeError: There is no target of that name; the message lists what exists.
        """
        targets = self.parse_targets()
        if self.target not in targets:
            raise RecipeError(unknown_name("target", self.target, targets))
        return targets[self.target]

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        """Key to value, as a recipe file has them.

        Args:
            absolute: Write paths in full, so that the file means the same in another folder.
        """
        content = super().to_dict(absolute=absolute)
        if absolute:
            if self.data_dir is not None:
                content["data_dir"] = str(self.resolve(self.data_dir).resolve())
            if self.space.endswith((".yml", ".yaml")):
                content["space"] = str(self.resolve(self.space).resolve())
            for target in content["targets"].values():
                if "table" in target:
                    target["table"] = str(self.resolve(target["table"]).resolve())
        return content


def _names_a_class(strategy: str) -> bool:
    module, _, name = strategy.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split("."))
