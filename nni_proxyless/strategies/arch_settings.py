"""How the architecture of a search is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..supernet.gated import ArchGradient

# What an α would travel with the default rate if all steps that concern it went one way; see `default_arch_rate`.
ARCH_TRAVEL = 7.0
ARCH_RATES = (1e-3, 0.2)
BATCH_NORMS = ("batch", "running")
# Of recipes with the gradient of all paths. Adam takes the size of gradients away, so that an α says how surely a path
# is better, not how much; with some decay it comes to rest where it says that, and layers can be weighed.
ARCH_WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class ArchSettings:
    """How the architecture is trained.

    Attributes:
        gradient: `two_path`, `full` or `reinforce`.
        learning_rate: Of Adam; derived from the number of architecture steps if not given.
        betas: Of Adam.
        weight_decay: Of Adam.
        schedule: `constant`, or `cosine` to 0.
        update_every: Weight steps for each architecture step.
        warmup_epochs: Epochs of weight steps only.
        warmup_sampling: `random` paths in those, or `fair`: all of a layer in turn.
        weight_sampling: Paths of weight steps after those: `probable` ones, drawn from p, or `fair`.
        finalist_epochs: Last epochs, in which the architecture parameters stay as they are and the networks that are
            compared at the end are trained in turn.
        reinforce_samples: Networks sampled in each step of `reinforce`.
        samples: Times that a step of `two_path` or `full` draws paths; its gradient is their mean.
        batch_norm: Statistics that batch-norm uses in its steps: of the `batch`, or the `running` ones.
        sharpen_epochs: The temperature falls from 1 in this many epochs at the end; if not given, in the last quarter
            of those after the warm-up where there is a budget, else in none.
        sharpen_temperature: To this.
        prune_below: Paths of less probability are removed for good when an epoch begins; none by default.
    """

    gradient: ArchGradient = "two_path"
    learning_rate: float | None = None
    betas: tuple[float, float] = (0.0, 0.999)
    weight_decay: float = 0.0
    schedule: str = "constant"
    update_every: int = 1
    warmup_epochs: int = 0
    warmup_sampling: str = "random"
    weight_sampling: str = "probable"
    finalist_epochs: int = 0
    reinforce_samples: int = 8
    samples: int = 1
    batch_norm: str = "batch"
    sharpen_epochs: int | None = None
    sharpen_temperature: float = 0.1
    prune_below: float | None = None


def default_arch_rate(steps: int, candidates: float, gradient: ArchGradient) -> float:
    """Rate of Adam on α for a search of so many architecture steps.

    Adam moves an α by about the rate in each step that concerns it, whatever the size of the gradient, and a layer has
    decided when its α are 2 or 3 apart: the paper's 0.001 moves nothing in a few hundred steps. It is kept where there
    are enough steps for it. A `two_path` step concerns 2 of N paths.

    Args:
        steps: Architecture steps of the whole search.
        candidates: N, the mean over layers.
        gradient: `two_path`, `full` or `reinforce`.
    """
    low, high = ARCH_RATES
    concerned = steps * min(1.0, 2.0 / candidates) if gradient == "two_path" else float(steps)
    return min(max(ARCH_TRAVEL / max(concerned, 1.0), low), high)
