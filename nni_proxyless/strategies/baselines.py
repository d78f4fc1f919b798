"""NNI's own strategies to compare with, on the same footing: latency in what they optimise, decoding within the budget.

NNI's penalty has no gradient (docs/nni.md), so DARTS, GumbelDARTS and NNI's own Proxyless get a latency term that has
one, CE + λ (E / ref - 1); ENAS gets latency in its reward, accuracy × (ref / latency)^w. All that they learn with is
NNI's own. Wiring only.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, SampleProfilerPenalty
from nni.nas.strategy import DARTS, ENAS, GumbelDARTS, Proxyless, RandomOneShot
from torch import Tensor

from ..decoding.budget import BudgetRequest
from ..decoding.random_networks import draw_within
from ..errors import InputError, MissingDependencyError
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..training.cpu_kernels import accelerate
from .arch_settings import ArchSettings
from .latency_aware import LatencyAwareStrategy
from .objective import Objective, get_objective
from .reinforce import reward

POLICY_SAMPLES = 64


class NniStrategy(LatencyAwareStrategy):
    """What NNI's own strategies get here: a latency table, a budget, and decoding within it.

    Args:
        latency: Latency table of the target device.
        budget_ms: Latency budget in milliseconds. The exported network is within it, and latency is compared with it.
        budget_fraction: The budget as a part of the largest network's latency.
        objective: `add_linear` or `mul_log`: how strategies with a gradient join loss and latency.
        latency_weight: Weight of latency: λ, the exponent of `mul_log`, or that of ENAS's reward. The tuner
            `LatencyBudget` finds the weight that meets a budget.
        finalists: Number of most likely architectures that are compared at the end; 1 compares none.
        **kwargs: Arguments of the NNI strategy itself.
    """

    def __init__(
        self,
        *,
        latency: LatencyTable | None = None,
        budget_ms: float | None = None,
        budget_fraction: float | None = None,
        objective: str | None = None,
        latency_weight: float = 0.1,
        finalists: int = 1,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("penalty") is not None:
            raise InputError(
                f"{type(self).__name__} has its own latency term; give latency_weight= instead of penalty="
            )
        if objective == "budget":
            raise InputError(
                "objective budget finds its own weight, which only ProxylessNAS can; use add_linear or mul_log"
            )
        settings = ArchSettings.checked({"objective": objective, "latency_weight": latency_weight})
        super().__init__(
            latency=latency,
            budget=BudgetRequest.of(budget_ms, budget_fraction, hard=True),
            finalists=finalists,
            **kwargs,
        )
        self._objective = get_objective(objective or "add_linear")
        self.latency_weight = settings.latency_weight

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        """Make NNI's supernet of a model space, in place."""
        self.apply_table(model)
        return accelerate(super().mutate_model(model))

    def configure_oneshot_module(self, training_module: Any) -> Any:
        """NNI's Lightning module, which exports what is decoded here."""
        module = super().configure_oneshot_module(training_module)
        module.export = self.decoded_choices
        return module

    def progress(self) -> dict[str, float]:
        """Further numbers for the history of a search."""
        return {**super().progress(), "latency_weight": self.latency_weight}


class LatencyTerm(ExpectationProfilerPenalty):
    """NNI's place for a penalty, taken by a latency term over the architecture parameters themselves.

    Args:
        probs: Gives label to path probabilities, shape (num_candidates,), with their graph.
        costs: The table applied to the space.
        objective: Joins loss and expected latency.
        reference_ms: What the expected latency is compared with, in milliseconds.
        weight: How much it counts.
    """

    def __init__(
        self,
        probs: Callable[[], Mapping[str, Tensor]],
        costs: SpaceCosts,
        objective: Objective,
        reference_ms: float,
        weight: float,
    ) -> None:
        super().__init__(None, reference_ms, weight)
        self._probs = probs
        self._costs = costs
        self._objective = objective

    def forward(self, loss: Tensor, _sample: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective and what NNI logs of it; NNI's own sample, made of Python numbers, is not needed."""
        expected_ms = self._costs.expected(self._probs())
        total = self._objective(loss, expected_ms, self.baseline, self.scale)
        return total, {"expected_latency_ms": expected_ms.detach(), "loss_final": total.detach()}


class Differentiable(NniStrategy):
    """Strategies of NNI's with architecture parameters, one tensor for each label."""

    def path_probs(self) -> dict[str, Tensor]:
        """Label to softmax(α), shape (num_candidates,), float64; changes nothing."""
        return {label: torch.softmax(alpha.detach().double(), -1) for label, alpha in self._alphas().items()}

    def _alphas(self) -> dict[str, torch.nn.Parameter]:
        return {label: self._arch_parameters[label] for label in self._candidates}

    def configure_oneshot_module(self, training_module: Any) -> Any:
        if self._costs is not None:
            self.penalty = LatencyTerm(
                lambda: {label: torch.softmax(alpha, -1) for label, alpha in self._alphas().items()},
                self._costs,
                self._objective,
                self.reference_ms(),
                self.latency_weight,
            )
        module = super().configure_oneshot_module(training_module)
        # NNI's goes through a set, whose order differs between processes: a resumed Adam would take the moments of one
        # parameter for those of another.
        module.arch_parameters = lambda: list(self._alphas().values())
        return module


class LatencyDARTS(Differentiable, DARTS):
    """NNI's DARTS with a latency term that has a gradient. Arguments: those of `NniStrategy` and of DARTS."""

    strategy_name: ClassVar[str] = "darts"


class LatencyGumbelDARTS(Differentiable, GumbelDARTS):
    """NNI's GumbelDARTS with a latency term that has a gradient."""

    strategy_name: ClassVar[str] = "gumbel_darts"


class LatencyNniProxyless(Differentiable, Proxyless):
    """NNI's own Proxyless with a latency term that has a gradient, exporting the most likely architecture."""

    strategy_name: ClassVar[str] = "nni_proxyless_builtin"


class RewardTerm(SampleProfilerPenalty):
    """Latency in ENAS's reward: R = accuracy × (ref / latency)^w (ProxylessNAS section 3.3.2; MnasNet).

    Args:
        costs: The table applied to the space.
        reference_ms: ref, in milliseconds.
        weight: w.
    """

    def __init__(self, costs: SpaceCosts, reference_ms: float, weight: float) -> None:
        super().__init__(None, reference_ms, -weight)
        self._costs = costs
        self._weight = weight

    def forward(self, accuracy: float, sample: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
        """The reward of a sampled network, and what NNI logs of it."""
        latency_ms = self._costs.of({label: sample[label] for label in self._costs.layers})
        found = reward(accuracy, latency_ms, self.baseline, self._weight)
        return found, {"latency_ms": latency_ms, "reward": found}


class LatencyENAS(NniStrategy, ENAS):
    """NNI's ENAS with latency in its reward.

    Its controller draws one layer after the other, each depending on the ones before. What is decoded is the product of
    the layers' marginal probabilities, the mean over `POLICY_SAMPLES` drawn networks.

    Args:
        arc_learning_rate: Learning rate of the controller's Adam.
        **kwargs: Arguments of `NniStrategy` and of ENAS.
    """

    strategy_name: ClassVar[str] = "enas"

    def __init__(self, *, arc_learning_rate: float = 1e-3, **kwargs: Any) -> None:
        kwargs.setdefault("policy_fn", partial(_policy, learning_rate=arc_learning_rate))
        kwargs.setdefault("reward_metric_name", "val_accuracy")
        super().__init__(**kwargs)

    def configure_oneshot_module(self, training_module: Any) -> Any:
        if self._costs is not None:
            self.penalty = RewardTerm(self._costs, self.reference_ms(), self.latency_weight)
        return super().configure_oneshot_module(training_module)

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "optimizer": self.oneshot_module.policy.optim.state_dict()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.oneshot_module.policy.optim.load_state_dict(dict(state["optimizer"]))

    def path_probs(self) -> dict[str, Tensor]:
        """Label to marginal probabilities under the controller, shape (num_candidates,), float64.

        The same numbers until the controller has been trained on; random states stay as they are.
        """
        module = self.oneshot_module
        states = torch.get_rng_state()
        was_training = module.policy.training
        torch.manual_seed(0)
        module.policy.train()  # to draw, not to take the most likely action
        total = {label: torch.zeros(len(of), dtype=torch.float64) for label, of in self._candidates.items()}
        with torch.no_grad():
            for _ in range(POLICY_SAMPLES):
                module.generator.next_sample()
                for label, probs in module.generator.sample_logits.items():
                    total[label] += torch.tensor(probs, dtype=torch.float64)
        module.policy.train(was_training)
        torch.set_rng_state(states)
        return {label: values / values.sum() for label, values in total.items()}


def _policy(environment: Any, learning_rate: float) -> Any:
    """NNI's default policy with an optimizer over its parameters in a fixed order.

    NNI's own goes through a set, whose order differs between processes, and which torch warns of.

    Raises:
        MissingDependencyError: Tianshou or gym is not installed.
    """
    try:
        from nni.nas.strategy._rl_impl import default_policy_fn
    except ImportError as reason:
        raise MissingDependencyError(
            "strategy enas needs tianshou and gym: pip install 'nni-proxyless[enas]'"
        ) from reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        policy = default_policy_fn(environment)
    parameters = dict.fromkeys([*policy.actor.parameters(), *policy.critic.parameters()])
    policy.optim = torch.optim.Adam(list(parameters), lr=learning_rate)
    return policy


class RandomSearch(NniStrategy, RandomOneShot):
    """Best of k random networks within the budget, ranked with the weights of a supernet trained on random paths.

    Args:
        best_of: k.
        seed: Draws them.
        **kwargs: Arguments of `NniStrategy` and of RandomOneShot.
    """

    strategy_name: ClassVar[str] = "random"

    def __init__(self, *, best_of: int = 16, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if best_of < 1:
            raise InputError(f"best_of must be at least 1, got {best_of!r}")
        self.best_of = best_of
        self.seed = seed
        self._drawn: list[dict[str, Any]] = []

    def apply_table(self, model: ModelSpace) -> None:
        super().apply_table(model)
        self._drawn = draw_within(
            self._candidates,
            self._costs,
            self.limit_ms,
            self.best_of,
            random.Random(f"random {self.seed}"),
        )

    def configure_oneshot_module(self, training_module: Any) -> Any:
        module = super().configure_oneshot_module(training_module)

        def resample() -> dict[str, Any]:
            # Python's generator, which searches seed at each epoch; NNI's draws are from one that nothing seeds.
            sample = {label: random.choice(of) for label, of in self._candidates.items()}
            for supernet_module in module.supernet_modules():
                supernet_module.resample(memo=sample)
            return sample

        module.resample = resample
        return module

    def path_probs(self) -> dict[str, Tensor]:
        """Label to equal probabilities: nothing is learnt of paths."""
        return {
            label: torch.full((len(of),), 1.0 / len(of), dtype=torch.float64) for label, of in self._candidates.items()
        }

    def finalists(self) -> list[dict[str, Any]]:
        return self._drawn

    def rank(
        self,
        architectures: Sequence[Mapping[str, Any]],
        scores: Sequence[float],
        log_likelihoods: Sequence[float],
        multiply_adds: Sequence[int] | None,
    ) -> list[float]:
        """The scores themselves: random search is known as the best of k by their own accuracies."""
        return list(scores)

    def decoded_choices(self) -> dict[str, Any]:
        """The best of the architectures drawn; the first one as long as they have not been compared."""
        return dict(self._chosen or self._drawn[0])

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> None:
        return None
