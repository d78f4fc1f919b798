"""NNI's own strategies with a latency term and decoding within a budget, for a fair comparison with ProxylessNAS.

NNI's penalty has no gradient (docs/nni.md). So DARTS, GumbelDARTS and NNI's Proxyless get a latency term with a
gradient, CE + λ (E / ref - 1) by default. ENAS gets the latency in its reward, accuracy × (ref / latency)^w. The
learning algorithms themselves are NNI's.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty, SampleProfilerPenalty
from nni.nas.strategy import DARTS, ENAS, GumbelDARTS, Proxyless, RandomOneShot
from pytorch_lightning.utilities.seed import isolate_rng
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
    """Adds a latency table, a budget and decoding within the budget to a strategy of NNI.

    Args:
        latency: Latency table of the target device.
        budget_ms: Latency budget in milliseconds. The exported network is within the budget, and the budget is the
            reference latency of the objective.
        budget_fraction: Latency budget as a fraction of the largest network's latency.
        objective: Objective of strategies with a gradient: `add_linear`, which is the default, or `mul_log`.
        latency_weight: Weight of the latency: λ of `add_linear`, or the exponent of `mul_log` or of ENAS's reward. The
            tuner `LatencyBudget` finds the weight that meets a budget.
        finalists: Number of most likely architectures that are compared at the end of the search; 1 compares none.
        **kwargs: Arguments of the NNI strategy.

    Raises:
        InputError: `penalty` is given, the objective is `budget`, or an argument is out of range.
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
        """Turn a model space into NNI's supernet, in place."""
        self.apply_table(model)
        return accelerate(super().mutate_model(model))

    def configure_oneshot_module(self, training_module: Any) -> Any:
        """Create NNI's Lightning module, and make it export the decoded architecture."""
        module = super().configure_oneshot_module(training_module)
        module.export = self.decoded_choices
        return module

    def progress(self) -> dict[str, float]:
        """Return further columns of the search's history."""
        return {**super().progress(), "latency_weight": self.latency_weight}


class LatencyTerm(ExpectationProfilerPenalty):
    """Latency term with a gradient, in the form of an NNI penalty.

    Args:
        probs: Function that returns the path probabilities of each label, shape (num_candidates,), differentiable.
        costs: Latencies of all candidates.
        objective: Objective that combines the loss and the expected latency.
        reference_ms: Reference latency of the objective, in milliseconds.
        weight: Weight of the latency.
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
        """Return the objective, and the values that NNI logs.

        NNI's sample is not used, because it consists of Python numbers without gradients.
        """
        expected_ms = self._costs.expected(self._probs())
        total = self._objective(loss, expected_ms, self.baseline, self.scale)
        return total, {"expected_latency_ms": expected_ms.detach(), "loss_final": total.detach()}


class Differentiable(NniStrategy):
    """Base of NNI's strategies with architecture parameters, one tensor for each label."""

    def path_probs(self) -> dict[str, Tensor]:
        """Return the path probabilities softmax(α) of each label, shape (num_candidates,), float64."""
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
        # NNI's own method iterates over a set, whose order differs between processes. After resuming, Adam would assign
        # the moment estimates of one parameter to another.
        module.arch_parameters = lambda: list(self._alphas().values())
        return module


class LatencyDARTS(Differentiable, DARTS):
    """NNI's DARTS with a differentiable latency term. It takes the arguments of `NniStrategy` and of DARTS."""

    strategy_name: ClassVar[str] = "darts"


class LatencyGumbelDARTS(Differentiable, GumbelDARTS):
    """NNI's GumbelDARTS with a differentiable latency term."""

    strategy_name: ClassVar[str] = "gumbel_darts"


class LatencyNniProxyless(Differentiable, Proxyless):
    """NNI's Proxyless with a differentiable latency term. It exports the most likely architecture."""

    strategy_name: ClassVar[str] = "nni_proxyless_builtin"


class RewardTerm(SampleProfilerPenalty):
    """Reward of ENAS with latency, R = accuracy × (ref / latency)^w (ProxylessNAS section 3.3.2; MnasNet).

    Args:
        costs: Latencies of all candidates.
        reference_ms: Reference latency ref, in milliseconds.
        weight: Exponent w.
    """

    def __init__(self, costs: SpaceCosts, reference_ms: float, weight: float) -> None:
        super().__init__(None, reference_ms, -weight)
        self._costs = costs
        self._weight = weight

    def forward(self, accuracy: float, sample: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
        """Return the reward of a sampled network, and the values that NNI logs."""
        latency_ms = self._costs.of({label: sample[label] for label in self._costs.layers})
        found = reward(accuracy, latency_ms, self.baseline, self._weight)
        return found, {"latency_ms": latency_ms, "reward": found}


class LatencyENAS(NniStrategy, ENAS):
    """NNI's ENAS with the latency in its reward.

    ENAS's controller samples one layer after the other, and each layer depends on the previous ones. For decoding, the
    layers count as independent: each has its marginal probabilities, estimated as the mean over `POLICY_SAMPLES`
    sampled networks.

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
        if "optimizer" in state:  # version 0.1 saved none in searches without a recipe
            self.oneshot_module.policy.optim.load_state_dict(dict(state["optimizer"]))

    def path_probs(self) -> dict[str, Tensor]:
        """Return the marginal path probabilities of each label under the controller, shape (num_candidates,), float64.

        The sampled networks have a fixed seed. So the result does not change until the controller is trained again, and
        all random number generators are left unchanged.
        """
        module = self.oneshot_module
        was_training = module.policy.training
        module.policy.train()  # so that it samples actions instead of taking the most likely ones
        total = {label: torch.zeros(len(of), dtype=torch.float64) for label, of in self._candidates.items()}
        with isolate_rng(), torch.no_grad():
            torch.manual_seed(0)
            for _ in range(POLICY_SAMPLES):
                module.generator.next_sample()
                for label, probs in module.generator.sample_logits.items():
                    total[label] += torch.tensor(probs, dtype=torch.float64)
        module.policy.train(was_training)
        return {label: values / values.sum() for label, values in total.items()}


def _policy(environment: Any, learning_rate: float) -> Any:
    """Create NNI's default policy, with an optimizer that has the parameters in a fixed order.

    NNI's own optimizer gets the parameters as a set. The order of a set differs between processes, and torch warns
    about it.

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
    """Random search: the best of k random networks within the budget.

    The networks are compared with the weights of a supernet that was trained on random paths.

    Args:
        best_of: Number k of random networks.
        seed: Seed of the random networks.
        **kwargs: Arguments of `NniStrategy` and of RandomOneShot.

    Raises:
        InputError: `best_of` is less than 1.
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
            # This uses Python's generator, which a search seeds in each epoch. NNI's own generator is never seeded.
            sample = {label: random.choice(of) for label, of in self._candidates.items()}
            for supernet_module in module.supernet_modules():
                supernet_module.resample(memo=sample)
            return sample

        module.resample = resample
        return module

    def path_probs(self) -> dict[str, Tensor]:
        """Return equal probabilities, because random search learns nothing about paths."""
        return {
            label: torch.full((len(of),), 1.0 / len(of), dtype=torch.float64) for label, of in self._candidates.items()
        }

    def finalists(self) -> list[dict[str, Any]]:
        return self._drawn

    def rank(self, architectures: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[float]:
        """Return the unchanged scores, because random search is defined as the best of k by accuracy."""
        return list(scores)

    def decoded_choices(self) -> dict[str, Any]:
        """Return the best of the random architectures, or the first one if they have not been compared yet."""
        return dict(self._chosen or self._drawn[0])

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> None:
        return None
