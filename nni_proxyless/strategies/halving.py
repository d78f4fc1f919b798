"""Successive halving of the finalists: the best ones are trained alone, and half of them are dropped in each round.

Accuracies with shared weights say little about how good a network becomes once it has its own weights. A few hundred
steps of training the network alone say more. Successive halving (Jamieson and Talwalkar, AISTATS 2016, figure 1) spends
such steps on few networks: all of a round are trained for the same number of steps, and the better half goes on to the
next round.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from ..errors import InputError
from ..supernet.single_path import single_path
from .evaluator_metric import call_step, collect_logged
from .evaluator_step import loss_of, to_device_of
from .finalist import Finalist
from .network_score import each_loader, state_kept

_log = logging.getLogger(__name__)
NETWORKS = 8  # that the first round trains
RATE = 0.5  # first learning rate of a round, as a fraction of the evaluator's initial one
_SEED = 0


def rounds_of(finalists: int) -> list[int]:
    """Return the number of networks that each round trains, for a number of finalists.

    Examples:
        >>> rounds_of(64), rounds_of(5), rounds_of(1)
        ([8, 4, 2], [5, 3, 2], [])
    """
    left = min(finalists, NETWORKS)
    found = []
    while left > 1:
        found.append(left)
        left = (left + 1) // 2
    return found


@dataclass(frozen=True)
class Halving:
    """Continues the training of finalists, and drops the worse half of them in each round.

    Everything is restored at the end: weights, buffers, the optimizer, and random number generators. All networks of a
    round see the same batches. Their learning rate falls from half of the evaluator's initial one to 0, by a half
    cosine, and the optimizer begins each round without momentum.

    Attributes:
        steps: Number of steps that each network of a round is trained for.
        clip: Largest norm of the gradients, to which they are clipped; `None` for no clipping.
    """

    steps: int
    clip: float | None = None

    def total(self, finalists: int) -> int:
        """Number of steps of all rounds, for a number of finalists."""
        return self.steps * sum(rounds_of(finalists))

    def run(
        self,
        finalists: Sequence[Finalist],
        module: Any,
        trainer: Any,
        training: Callable[[], Any],
        score: Callable[[Mapping[str, Any]], float],
    ) -> list[Finalist]:
        """Continue the training of the best finalists.

        Args:
            finalists: Compared finalists, the most likely one first.
            module: Lightning module of the evaluator, whose model is the supernet.
            trainer: Lightning trainer of the running fit.
            training: Function that returns the loader of the training data, or several in a list or mapping.
            score: Function that returns the metric of a network with the module's present weights; the higher the
                better.

        Returns:
            The finalists in the same order. Those that were trained have their number of steps and their last score.

        Raises:
            InputError: The training loader has no batch.
        """
        found = list(finalists)
        standing = sorted(range(len(found)), key=lambda index: found[index].rank, reverse=True)
        weights = _Weights(module)
        of: dict[int, dict[str, Tensor]] = {}
        with _optimizer_of(trainer) as (optimizer, rates), isolate_rng(), state_kept(module):
            try:
                for number, count in enumerate(rounds_of(len(found))):
                    left = standing[:count]
                    for index in left:
                        weights.load(of.pop(index, {}))
                        finite = self._train(found[index].choices, number, module, trainer, optimizer, rates, training)
                        of[index] = weights.changed()
                        reached = score(found[index].choices) if finite else -math.inf
                        steps = found[index].trained_steps + self.steps
                        found[index] = replace(found[index], trained_steps=steps, trained_score=reached)
                    standing = sorted(left, key=lambda index: -_known(found[index]))
                    _log.info(
                        "%d networks trained on for %d steps: %.4f to %.4f",
                        count, self.steps, _known(found[standing[-1]]), _known(found[standing[0]]),
                    )  # fmt: skip
            finally:
                weights.load({})
        return found

    def _train(
        self,
        choices: Mapping[str, Any],
        number: int,
        module: Any,
        trainer: Any,
        optimizer: Any,
        rates: Sequence[float],
        training: Callable[[], Any],
    ) -> bool:
        """Train one network for a round, and return whether its loss has stayed finite."""
        torch.manual_seed(_SEED + number)  # so that all networks of a round see the same batches
        optimizer.state = defaultdict(dict)
        batches = map(to_device_of(trainer), _endless(training))
        plugin = trainer.precision_plugin
        scaler = None if getattr(plugin, "scaler", None) is None else torch.amp.GradScaler("cuda")
        with torch.enable_grad(), single_path(module.model, choices), collect_logged(module):
            module.train()
            for step in range(self.steps):
                batch = next(batches)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = RATE * rate * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
                optimizer.zero_grad(set_to_none=True)
                with plugin.train_step_context():
                    loss = loss_of(call_step(module.training_step, batch, step, 0, False))
                if not bool(torch.isfinite(loss)):
                    _log.warning("the loss of a finalist is %s in step %d of its training", loss.item(), step + 1)
                    return False
                self._step(loss, optimizer, scaler)
        return True

    def _step(self, loss: Tensor, optimizer: Any, scaler: Any) -> None:
        if scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
        if self.clip is not None:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_([weight for weight in weights if weight.grad is not None], self.clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()


class _Weights:
    """Parameters and buffers of a module as they were, and the parameters that have changed since.

    Entangled parameters overlap, so all of them are restored before the changed ones of a network are loaded.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._shared = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        self._buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]

    @torch.no_grad()
    def load(self, changed: Mapping[str, Tensor]) -> None:
        for buffer, before in self._buffers:
            buffer.copy_(before)
        own = dict(self._module.named_parameters())
        for values in (self._shared, changed):
            for name, value in values.items():
                own[name].copy_(value)
        for weight in own.values():
            weight.grad = None

    def changed(self) -> dict[str, Tensor]:
        """Parameters of the network that was trained last: those with a gradient."""
        return {
            name: weight.detach().clone() for name, weight in self._module.named_parameters() if weight.grad is not None
        }


@contextmanager
def _optimizer_of(trainer: Any) -> Iterator[tuple[Any, list[float]]]:
    """Context manager that gives the optimizer of the weights and the initial learning rates of its groups.

    Its state and learning rates are restored at the end.
    """
    (optimizer,) = [o for o in trainer.optimizers if not getattr(o, "is_arch_optimizer", False)]
    state, rates = optimizer.state, [group["lr"] for group in optimizer.param_groups]
    try:
        yield optimizer, [_initial_rate(group) for group in optimizer.param_groups]
    finally:
        optimizer.state = state
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def _initial_rate(group: Mapping[str, Any]) -> float:
    """Learning rate of a parameter group before its schedule: its peak, if the schedule names one."""
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


def _endless(training: Callable[[], Any]) -> Iterator[Any]:
    for epoch in itertools.count():
        read = False
        for batch in itertools.chain.from_iterable(each_loader(training())):
            read = True
            yield batch
        if not read:
            raise InputError(
                "the training loader has no batch to train finalists on; set finalist_steps=0"
                if epoch == 0
                else "the training loader can be read only once, which is too short for finalist_steps"
            )


def _known(finalist: Finalist) -> float:
    """Score after the last round; a score that is not a number is the lowest."""
    score = finalist.trained_score
    return -math.inf if score is None or math.isnan(score) else score


def scored_in(
    context: Callable[[], AbstractContextManager[Any]], score: Callable[[Mapping[str, Any]], float]
) -> Callable[[Mapping[str, Any]], float]:
    """Return a score that is computed in a context of its own each time, such as autocast, which keeps old weights."""

    def found(choices: Mapping[str, Any]) -> float:
        with context():
            return score(choices)

    return found
