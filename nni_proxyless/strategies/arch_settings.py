"""Settings of the architecture's training, with their checks and defaults.

`ProxylessNAS` takes these settings as arguments, and recipes take them as keys, so both have the same defaults. This
module imports neither NNI nor torch, so that a recipe can be checked without them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ..files.settings import (
    CheckedSettings,
    Count,
    Finalists,
    NumberFrom0,
    PartBelow1,
    Positive,
    ProperPart,
    Samples,
    Temperature,
    WholeFrom0,
)

ArchGradient = Literal["two_path", "full", "reinforce"]
ObjectiveName = Literal["budget", "add_linear", "mul_log"]
# Distance that an α would move at the default learning rate if all steps that update it had the same direction.
ARCH_TRAVEL = 7.0
ARCH_RATES = (1e-3, 0.2)
# Adam normalises the size of gradients. So without decay, α shows how surely a path is better, but not by how much.
FULL_WEIGHT_DECAY = 1e-3
FULL_UPDATE_EVERY = 2
BUDGET_FINALISTS = 64


class ArchSettings(CheckedSettings):
    """Settings of the architecture's training. The fields are arguments of `ProxylessNAS` and keys of recipes."""

    objective: ObjectiveName | None = None
    """Objective that combines the cross-entropy CE and the expected latency E: `budget`, CE + μ (E / T - 1), with the
    budget T and a weight μ that dual ascent adjusts; `add_linear`, CE + λ (E / ref - 1), with the reference latency
    ref; or `mul_log`, CE · (log E / log ref)^b. Default: `budget` if there is a budget, else `add_linear`."""

    latency_weight: NumberFrom0 = 0.1
    """Weight of the latency: λ of `add_linear`, or the exponent of `mul_log` and of the reward of `reinforce`. The
    objective `budget` adjusts its own weight."""

    arch_gradient: ArchGradient = "full"
    """Gradient of the architecture parameters. In each step, `full` compares all paths of a layer, and `two_path`
    compares two of them, as in the paper. `reinforce` samples whole networks, whose reward is score × (ref /
    latency)^w. The score is the evaluator's own metric, which is the accuracy in recipes."""

    arch_learning_rate: Positive | None = None
    """Learning rate of Adam on the architecture parameters. Default: derived from the number of architecture steps;
    the log shows it."""

    arch_beta1: PartBelow1 = 0.0
    """Decay rate of Adam's first moment estimate (the paper's value)."""

    arch_beta2: PartBelow1 = 0.999
    """Decay rate of Adam's second moment estimate (the paper's value)."""

    arch_weight_decay: NumberFrom0 | None = None
    """L2 penalty on the architecture parameters. Default: 0.001 with `full`, else 0 (the paper's value)."""

    arch_schedule: Literal["constant", "cosine"] = "constant"
    """Schedule of the architecture's learning rate: `constant`, or `cosine`, which falls to 0."""

    arch_update_every: Count | None = None
    """Number of weight steps per architecture step. Default: 2 with `full`, whose steps take twice as long as those of
    `two_path`; else 1."""

    arch_samples: Count = 1
    """Number of path draws in each architecture step of `two_path` or `full`. The step uses the mean of their
    gradients."""

    arch_batch_norm: Literal["batch", "running"] = "batch"
    """Statistics that batch-norm uses in architecture steps: those of the `batch`, as in the paper's code, or the
    `running` statistics."""

    reinforce_samples: Samples = 8
    """Number of networks that each step of `reinforce` samples."""

    warmup_epochs: WholeFrom0 = 0
    """Number of epochs at the start that train only the weights."""

    warmup_sampling: Literal["random", "fair"] = "random"
    """Choice of paths in the warm-up: `random`, or `fair`, where the candidates of a layer take turns (FairNAS)."""

    weight_sampling: Literal["probable", "fair"] = "probable"
    """Choice of paths in weight steps after the warm-up: `probable`, where paths are drawn from the path probabilities
    as in the paper, or `fair`, where the candidates of a layer take turns."""

    sharpen_epochs: WholeFrom0 | None = None
    """Number of epochs at the end of the architecture's training in which the softmax temperature falls, so that the
    search settles on one path per layer. Default: with the objective `budget`, a quarter of the epochs that train the
    architecture; else 0."""

    sharpen_temperature: Temperature = 0.1
    """Final softmax temperature of `sharpen_epochs`; the initial temperature is 1."""

    prune_below: ProperPart | None = None
    """Probability below which a path is permanently removed at the start of an epoch. At least one network within the
    budget always remains. Default: no path is removed."""

    finalists: Finalists | None = None
    """Number of most likely networks that are compared at the end of the search. Each is evaluated with the supernet's
    weights on the architecture part of the data; in Python, on the evaluator's validation loader. The best one is
    exported. Default: 64 with the objective `budget`, else 1, which compares none."""

    finalist_epochs: WholeFrom0 = 0
    """Number of epochs at the end in which only the weights of the finalists are trained, in turn. The architecture
    parameters no longer change in these epochs. GreedyNAS (You et al. 2020) trains promising paths in a similar way."""

    finalist_steps: WholeFrom0 = 0
    """Number of steps in each round of training before the choice among the finalists. The first round trains the 8
    best finalists, each alone from the shared weights. After each round, the better half is trained further, until one
    is left. The total is 14 times this number. With 0, none is trained."""

    @model_validator(mode="after")
    def _check_together(self) -> ArchSettings:
        if self.finalist_epochs and self.finalists == 1:
            raise ValueError("finalist_epochs needs finalists of at least 2, because it trains the finalists")
        if self.finalist_steps and self.finalists == 1:
            raise ValueError("finalist_steps needs finalists of at least 2, because it trains the finalists")
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
        """Number of weight steps per architecture step, with its default resolved."""
        return self.arch_update_every or (FULL_UPDATE_EVERY if self.arch_gradient == "full" else 1)

    def objective_name(self, has_budget: bool) -> ObjectiveName:
        """Name of the objective, with its default resolved.

        Args:
            has_budget: Whether there is a latency budget.
        """
        return self.objective or ("budget" if has_budget else "add_linear")

    def num_finalists(self, has_budget: bool) -> int:
        """Number of finalists, with its default resolved.

        Finalists are compared by accuracy. So they are only compared by default if a budget limits their latency.

        Args:
            has_budget: Whether there is a latency budget.
        """
        if self.finalists is not None:
            return self.finalists
        return BUDGET_FINALISTS if self.objective_name(has_budget) == "budget" else 1


def default_arch_rate(steps: int, candidates: float, gradient: ArchGradient) -> float:
    """Compute the default learning rate of Adam on α for a search of a given length.

    Each step that updates an α moves it by about the learning rate, whatever the size of the gradient. A layer has
    decided when its α differ by 2 or 3, so the paper's rate of 0.001 is too low for a few hundred steps. For searches
    with enough steps, the result is the paper's rate. A `two_path` step updates 2 of a layer's N paths.

    Args:
        steps: Number of architecture steps of the whole search.
        candidates: Mean number N of candidates of a layer.
        gradient: Gradient of the architecture parameters: `two_path`, `full` or `reinforce`.
    """
    low, high = ARCH_RATES
    concerned = steps * min(1.0, 2.0 / candidates) if gradient == "two_path" else float(steps)
    return min(max(ARCH_TRAVEL / max(concerned, 1.0), low), high)
