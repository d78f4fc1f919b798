"""Random search within a latency budget, with the shared weights of NNI's RandomOneShot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.strategy import RandomOneShot
from torch import Tensor

from ..decoding.random_networks import draw_within
from ..errors import InputError, RunError, shown
from ..values import MOST_COUNT, is_whole
from .nni_strategy import NniStrategy, check_number_of_inputs

MOST_DRAWS = 1000


class RandomSearch(NniStrategy, RandomOneShot):
    """Random search: the best of k random networks within the budget.

    The networks are compared with the weights of a supernet that was trained on random paths.

    Args:
        best_of: Number k of random networks.
        seed: Seed of the random networks.
        **kwargs: Arguments of `NniStrategy` and of RandomOneShot.

    Raises:
        InputError: `best_of` is not a whole number from 1.
    """

    strategy_name: ClassVar[str] = "random"

    def __init__(self, *, best_of: int = 16, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not is_whole(best_of, 1, MOST_COUNT):
            raise InputError(f"best_of must be a whole number from 1 to {MOST_COUNT}, got {shown(best_of)}")
        self.best_of = best_of
        self.seed = seed
        self._drawn: list[dict[str, Any]] = []

    def _check_inputs(self, mutables: Mapping[str, Any]) -> None:
        check_number_of_inputs(mutables, type(self).__name__, several=True)

    def apply_table(self, model: ModelSpace) -> None:
        super().apply_table(model)
        generator = random.Random(f"random {self.seed}")
        drawn = draw_within(
            self._candidates,
            self._costs,
            self.limit_ms,
            self.best_of,
            generator,
            lambda choices: self._within_all(choices) and self._accepts(choices),
        )
        self._drawn = [choices for choices in drawn if self._within_all(choices) and self._accepts(choices)]
        if not self._drawn:  # hardly any network is within all budgets
            self._drawn = self._decoded_at_random(generator)
        if not self._drawn:
            raise InputError(
                "no random network is within the budgets and accepted by filter= and the constraints of the space; "
                "relax one of them"
            )

    def _within_all(self, choices: Mapping[str, Any]) -> bool:
        return all(constraint.holds(constraint.of(choices)) for constraint in self.constraints)

    def _decoded_at_random(self, generator: random.Random) -> list[dict[str, Any]]:
        """Decode random distributions within all budgets. Some networks are more likely than others."""
        found: dict[str, dict[str, Any]] = {}
        for _ in range(4 * self.best_of):
            probs = {
                label: torch.tensor([generator.random() + 1e-9 for _ in of]) for label, of in self._candidates.items()
            }
            drawn = replace(self.distribution(), probs=probs).most_likely(self.limit_ms)
            if self._accepts(drawn) and len(found) < self.best_of:
                found.setdefault(str(drawn), drawn)
        return list(found.values())

    def _accepts(self, sample: Mapping[str, Any]) -> bool:
        accepts = self.filter is None or bool(self.filter(dict(sample)))
        return accepts and self._constraints.allow(sample)

    def configure_oneshot_module(self, training_module: Any) -> Any:
        module = super().configure_oneshot_module(training_module)

        def resample() -> dict[str, Any]:
            # This uses Python's generator, which a search seeds in each epoch. NNI's own generator is never seeded.
            for _ in range(MOST_DRAWS):
                sample = {label: random.choice(of) for label, of in self._candidates.items()}
                if self._accepts(sample):
                    break
            else:
                raise RunError(f"filter= has accepted none of {MOST_DRAWS} random networks")
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

    def _uncompared(self, count: int) -> list[dict[str, Any]]:
        return self._drawn[:count]  # others need not be accepted by filter=

    def rank(self, architectures: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[float]:
        """Return the unchanged scores, because random search is defined as the best of k by accuracy."""
        return list(scores)

    def decoded_choices(self) -> dict[str, Any]:
        """Return the best of the random architectures, or the first one if they have not been compared yet."""
        return dict(self._chosen or self._drawn[0])

    def val_dataloader(self, train_dataloader_fn: Callable[[], Any], val_dataloader_fn: Callable[[], Any]) -> None:
        return None
