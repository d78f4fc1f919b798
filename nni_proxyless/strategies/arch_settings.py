"""How the architecture of a search is trained: every setting with its check and its default.

`ProxylessNAS` takes these settings as arguments and recipes as keys, so both have the same defaults. Neither NNI nor
torch is imported here: a recipe is checked without them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..settings import (
    CheckedSettings,
    Count,
    NumberFrom0,
    PartBelow1,
    PartUpTo1,
    Positive,
    ProperPart,
    Whole,
    WholeFrom0,
)

ArchGradient = Literal["two_path", "full", "reinforce"]
ObjectiveName = Literal["budget", "add_linear", "mul_log"]
# The distance that an α would travel at the default rate if all steps that concern it went one way.
ARCH_TRAVEL = 7.0
ARCH_RATES = (1e-3, 0.2)
# Adam divides a gradient by its own size, so without decay α says how surely a path is better and not by how much.
FULL_WEIGHT_DECAY = 1e-3
FULL_UPDATE_EVERY = 2
BUDGET_FINALISTS = 64


class ArchSettings(CheckedSettings):
    """How the architecture is trained. The fields are arguments of `ProxylessNAS` and keys of recipes."""

    objective: ObjectiveName | None = None
    """How loss and latency are joined: `budget`, CE + μ (E / T - 1) with μ by dual ascent; `add_linear`,
    CE + λ (E / ref - 1); or `mul_log`, CE · (log E / log ref)^b. Default: `budget` where there is a budget, else
    `add_linear`."""

    latency_weight: NumberFrom0 = 0.1
    """Weight of latency: λ of `add_linear`, and the exponent of `mul_log` and of `reinforce`. The objective `budget`
    finds its own weight."""

    arch_gradient: ArchGradient = "full"
    """Gradient of the architecture parameters: `full` compares all paths of a layer in each step, `two_path` compares
    two of them (the paper's), `reinforce` samples whole networks and rewards each with accuracy × (ref / latency)^w."""

    arch_learning_rate: Positive | None = None
    """Learning rate of Adam on the architecture parameters. Default: derived from the number of architecture steps,
    and logged."""

    arch_beta1: PartBelow1 = 0.0
    """Decay rate of Adam's first moment estimate (the paper's value)."""

    arch_beta2: PartBelow1 = 0.999
    """Decay rate of Adam's second moment estimate (the paper's value)."""

    arch_weight_decay: NumberFrom0 | None = None
    """L2 penalty on the architecture parameters. Default: 0.001 with `full`, else 0, the paper's value."""

    arch_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of that learning rate: `constant`, or `cosine` to 0."""

    arch_update_every: Count | None = None
    """Number of weight steps for each architecture step. Default: 2 with `full`, whose steps take twice the time of
    `two_path`, else 1."""

    arch_samples: Count = 1
    """Number of times that an architecture step of `two_path` or `full` draws paths; its gradient is their mean."""

    arch_batch_norm: Literal["batch", "running"] = "batch"
    """Statistics that batch-norm uses in architecture steps: those of the `batch`, as in the paper's code, or the
    `running` ones."""

    reinforce_samples: Annotated[Whole, Field(ge=2)] = 8
    """Number of networks that each step of `reinforce` samples."""

    warmup_epochs: WholeFrom0 = 0
    """Number of epochs at the start that train weights only."""

    warmup_sampling: Literal["random", "fair"] = "random"
    """Paths of the warm-up: drawn at `random`, or `fair`: the candidates of a layer take turns (FairNAS)."""

    weight_sampling: Literal["probable", "fair"] = "probable"
    """Paths of the weight steps after the warm-up: `probable`, drawn from the path probabilities as in the paper, or
    `fair`."""

    sharpen_epochs: WholeFrom0 | None = None
    """Number of epochs at the end in which the temperature of the path probabilities falls, so that the search ends
    decided. Default: a quarter of the epochs after the warm-up with the objective `budget`, else none."""

    sharpen_temperature: PartUpTo1 = 0.1
    """Final softmax temperature; the temperature starts at 1."""

    prune_below: ProperPart | None = None
    """Probability below which a path is removed for good when an epoch begins. The budget always stays reachable.
    Default: nothing is pruned."""

    finalists: Count | None = None
    """Number of most likely architectures that are compared at the end of the search, each with the supernet's weights
    on the validation loader; the best one is exported. Default: 64 with the objective `budget`, else 1, which compares
    none."""

    finalist_epochs: WholeFrom0 = 0
    """Number of last epochs in which the architecture parameters stay as they are and weight steps train the finalists
    alone, in turn (as GreedyNAS trains promising paths, You et al. 2020)."""

    @model_validator(mode="after")
    def _check_together(self) -> ArchSettings:
        if self.finalist_epochs and self.finalists == 1:
            raise ValueError("finalist_epochs needs finalists of at least 2: it trains those")
        return self

    @property
    def arch_betas(self) -> tuple[float, float]:
        """Decay rates of Adam's moment estimates."""
        return (self.arch_beta1, self.arch_beta2)

    @property
    def effective_arch_weight_decay(self) -> float:
        """L2 penalty on the architecture parameters, with its default resolved."""
        if self.arch_weight_decay is not None:
            return self.arch_weight_decay
        return FULL_WEIGHT_DECAY if self.arch_gradient == "full" else 0.0

    @property
    def effective_arch_update_every(self) -> int:
        """Number of weight steps for each architecture step, with its default resolved."""
        return self.arch_update_every or (FULL_UPDATE_EVERY if self.arch_gradient == "full" else 1)

    def objective_name(self, has_budget: bool) -> ObjectiveName:
        """Name of the objective, with its default resolved.

        Args:
            has_budget: Whether there is a latency budget.
        """
        return self.objective or ("budget" if has_budget else "add_linear")

    def num_finalists(self, has_budget: bool) -> int:
        """Number of finalists, with its default resolved: accuracies alone know nothing of latency.

        Args:
            has_budget: Whether there is a latency budget.
        """
        if self.finalists is not None:
            return self.finalists
        return BUDGET_FINALISTS if self.objective_name(has_budget) == "budget" else 1


def default_arch_rate(steps: int, candidates: float, gradient: ArchGradient) -> float:
    """Learning rate of Adam on α for a search of a given length.

    Adam moves an α by about the rate in each step that concerns it, whatever the size of the gradient. A layer has
    decided when its α are 2 or 3 apart, so the paper's 0.001 moves nothing in a few hundred steps. The paper's rate is
    kept where there are enough steps for it. A `two_path` step concerns 2 of N paths.

    Args:
        steps: Number of architecture steps of the whole search.
        candidates: Mean number of candidates of a layer, N.
        gradient: `two_path`, `full` or `reinforce`.
    """
    low, high = ARCH_RATES
    concerned = steps * min(1.0, 2.0 / candidates) if gradient == "two_path" else float(steps)
    return min(max(ARCH_TRAVEL / max(concerned, 1.0), low), high)
