"""NNI's ENAS with the latency in its reward and decoding within a budget."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.oneshot.pytorch.profiler import SampleProfilerPenalty
from nni.nas.strategy import ENAS
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ..errors import RunError
from ..latency.costs import SpaceCosts
from .compatibility import check_enas
from .evaluator_metric import BatchScore
from .nni_strategy import NniStrategy, check_number_of_inputs
from .reinforce import reward
from .search_warnings import equal_rewards, nothing_learnt

POLICY_SAMPLES = 64
REWARD = "reward"


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
        **kwargs: Arguments of `NniStrategy` and of ENAS. Unless `reward_metric_name` names one of the logged metrics,
            the reward is the evaluator's metric for which higher values are better, or its loss with the sign reversed.

    Raises:
        MissingDependencyError: Tianshou or gym is not installed.
    """

    strategy_name: ClassVar[str] = "enas"

    def __init__(self, *, arc_learning_rate: float = 1e-3, **kwargs: Any) -> None:
        check_enas()
        kwargs.setdefault("policy_fn", partial(_policy, learning_rate=arc_learning_rate))
        self._own_metric = "reward_metric_name" not in kwargs
        kwargs.setdefault("reward_metric_name", REWARD)
        self._rewards: set[float] = set()
        super().__init__(**kwargs)

    def _check_inputs(self, mutables: Mapping[str, Any]) -> None:
        check_number_of_inputs(mutables, type(self).__name__)

    def configure_oneshot_module(self, training_module: Any) -> Any:
        if self._costs is not None:
            self.penalty = RewardTerm(self._costs, self.reference_ms(), self.latency_weight)
        if self._own_metric:
            score = BatchScore(training_module)

            def validation_step(batch: Any, batch_idx: int) -> None:
                found = score.of(batch, batch_idx)
                if len(self._rewards) < 2:
                    self._rewards.add(found)
                training_module.log_dict({**score.values, REWARD: found})

            training_module.validation_step = validation_step
            self._evaluator_module = training_module
        return super().configure_oneshot_module(training_module)

    def check_epoch(self, trainer: Any, *, last: bool) -> None:
        super().check_epoch(trainer, last=last)
        if not last:
            return
        if self._own_metric:  # finalists are compared by the evaluator's own step
            vars(self._evaluator_module).pop("validation_step", None)
        module = self.oneshot_module
        if module._trajectory_counter == 0:
            raise RunError(nothing_learnt(0, module.warmup_epochs, trainer.current_epoch))
        if module._trajectory_counter < module.batches_per_update:
            self._warn(
                f"ENAS's controller was never updated: it has sampled {module._trajectory_counter} networks, and "
                f"batches_per_update is {module.batches_per_update}; train longer, or lower batches_per_update"
            )
        if self._own_metric and len(self._rewards) == 1:
            self._warn(equal_rewards("in the whole search"))

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
    """
    from nni.nas.strategy._rl_impl import default_policy_fn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        policy = default_policy_fn(environment)
    parameters = dict.fromkeys([*policy.actor.parameters(), *policy.critic.parameters()])
    policy.optim = torch.optim.Adam(list(parameters), lr=learning_rate)
    return policy
