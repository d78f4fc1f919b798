"""NNI's DARTS, GumbelDARTS and Proxyless with a latency term that has a gradient, and decoding within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.nn.pytorch import Cell, ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedRepeat
from nni.nas.strategy import DARTS, GumbelDARTS, Proxyless
from torch import Tensor

from ..errors import UnsupportedSpaceError
from ..latency.costs import SpaceCosts
from .nni_strategy import NniStrategy
from .objective import Objective
from .search_warnings import unmoved_choices


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
        """Return the path probabilities of each label, shape (num_candidates,), float64.

        They are softmax(α), except for an InputChoice, whose candidates are sets of inputs (`input_set_probs`), and
        for a Repeat in NNI's Proxyless, whose blocks are chosen one by one (`depth_probs`).
        """
        return self._probs(lambda alpha: alpha.detach().double())

    def _probs(self, read: Callable[[Tensor], Tensor] = lambda alpha: alpha) -> dict[str, Tensor]:
        blocks = self._blocks_of_repeats()
        found = {}
        for label, of in self._candidates.items():
            if label in blocks:
                found[label] = depth_probs([torch.softmax(read(a), -1)[1] for a in blocks[label]], of)
            elif isinstance(of[0], list):
                found[label] = input_set_probs(read(self._arch_parameters[label]), of)
            else:
                found[label] = torch.softmax(read(self._arch_parameters[label]), -1)
        return found

    def _blocks_of_repeats(self) -> dict[str, list[Tensor]]:
        """Return α of the optional blocks of each Repeat that NNI searches block by block, by label of the depth."""
        return {
            str(module.depth_choice.label): [b._arch_alpha for b in module.blocks[module.min_depth : module.max_depth]]
            for module in self._supernet.modules()
            if isinstance(module, ProxylessMixedRepeat)
        }

    def _alphas(self) -> list[Tensor]:
        """Return all architecture parameters, those of the labels first, in an order that is always the same."""
        labelled = [self._arch_parameters[label] for label in self._candidates]
        blocks = [alpha for of in self._blocks_of_repeats().values() for alpha in of]
        return list({id(alpha): alpha for alpha in [*labelled, *blocks]}.values())

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        for name, module in model.named_modules():
            if isinstance(module, Cell):
                raise UnsupportedSpaceError(
                    f"module '{name}' is a Cell, which {type(self).__name__} does not decode; write it as "
                    "LayerChoices and InputChoices"
                )
        self._supernet = super().mutate_model(model)
        return self._supernet

    def check_epoch(self, trainer: Any, *, last: bool) -> None:
        super().check_epoch(trainer, last=last)
        if last:
            self._warn(unmoved_choices(self._at_start, self.path_probs()))

    def configure_oneshot_module(self, training_module: Any) -> Any:
        self._at_start = self.path_probs()
        if self._costs is not None:
            self.penalty = LatencyTerm(
                self._probs,
                self._costs,
                self._objective,
                self.reference_ms(),
                self.latency_weight,
            )
        module = super().configure_oneshot_module(training_module)
        # NNI's own method iterates over a set, whose order differs between processes. After resuming, Adam would assign
        # the moment estimates of one parameter to another.
        module.arch_parameters = self._alphas
        return module


def input_set_probs(alpha: Tensor, sets: Sequence[Sequence[int]]) -> Tensor:
    """Compute probabilities of sets of inputs from NNI's architecture parameters, of which there is one for each input.

    A set's probability is proportional to the product of softmax(α) over its inputs, so the most likely set consists of
    the inputs with the largest α, which NNI exports. If sets have different sizes (`n_chosen=None`), NNI assumes one
    input, and larger sets have probability 0.

    Args:
        alpha: Architecture parameters, shape (num_inputs,).
        sets: Sets of inputs that can be chosen.

    Returns:
        Probabilities, shape (len(sets),), differentiable.
    """
    smallest = min(map(len, sets))
    scores = [alpha[list(of)].sum() if len(of) == smallest else alpha.new_tensor(-torch.inf) for of in sets]
    return torch.softmax(torch.stack(scores), 0)


def depth_probs(kept: Sequence[Tensor], depths: Sequence[int]) -> Tensor:
    """Compute probabilities of depths if each optional block is kept independently.

    Args:
        kept: Probability of each optional block, scalars.
        depths: Depths that can be chosen. The smallest one keeps no optional block.

    Returns:
        Probabilities, shape (len(depths),), differentiable. They are those of the number of kept blocks (a
        Poisson-binomial distribution), renormalised over `depths`.
    """
    counts = torch.ones_like(kept[0])[None]
    zero = torch.zeros_like(counts)
    for p in kept:
        counts = torch.cat([counts * (1 - p), zero]) + torch.cat([zero, counts * p])
    chosen = counts[[depth - min(depths) for depth in depths]]
    return chosen / chosen.sum()


class LatencyDARTS(Differentiable, DARTS):
    """NNI's DARTS with a differentiable latency term. It takes the arguments of `NniStrategy` and of DARTS."""

    strategy_name: ClassVar[str] = "darts"


class LatencyGumbelDARTS(Differentiable, GumbelDARTS):
    """NNI's GumbelDARTS with a differentiable latency term."""

    strategy_name: ClassVar[str] = "gumbel_darts"


class LatencyNniProxyless(Differentiable, Proxyless):
    """NNI's Proxyless with a differentiable latency term. It exports the most likely architecture."""

    strategy_name: ClassVar[str] = "nni_proxyless_builtin"
