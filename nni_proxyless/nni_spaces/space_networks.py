"""Random networks of a model space, given by the positions of their candidates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SpaceError
from ..supernet.constraints import MOST_DRAWS
from .trace import Tracer

Codes = tuple[int, ...]


class SpaceNetworks:
    """Networks of a model space.

    Args:
        tracer: Tracer of the space.
        seed: Seed of the random networks.

    Attributes:
        sizes: Number of candidates of each label, and of values of each derived quantity.
        labels: Labels, and then the names of the derived quantities.
    """

    def __init__(self, tracer: Tracer, seed: int) -> None:
        self.tracer = tracer
        self.sizes = {label: len(of) for label, of in tracer.candidates.items()}
        self.sizes |= {quantity.name: len(quantity.values) for quantity in tracer.derived}
        self.labels = list(self.sizes)
        self._candidates = list(tracer.candidates.items())
        self._random = random.Random(f"model space {seed}")

    def sample(self, codes: Codes) -> dict[str, Any]:
        """Return the NNI sample of a network that is given by the positions of its candidates."""
        return {label: of[code] for (label, of), code in zip(self.tracer.candidates.items(), codes, strict=False)}

    def codes(self, sample: Mapping[str, Any]) -> Codes:
        """Return the positions of the candidates of an NNI sample, and of the values of the derived quantities."""
        return self.extended([of.index(sample[label]) for label, of in self.tracer.candidates.items()])

    def extended(self, codes: Sequence[int]) -> Codes:
        """Append the positions of the derived quantities' values to those of all candidates."""
        places = dict(zip(self.tracer.candidates, codes, strict=True))
        return (*codes, *(int(quantity.places_of(places)) for quantity in self.tracer.derived))

    def draw(self, given: Mapping[int, int] | None = None) -> Codes:
        """Draw a network that satisfies the constraints of the space.

        Args:
            given: Positions of candidates, by the position of the label, that are not drawn.

        Raises:
            SpaceError: None was found.
        """
        found = self._draw(given or {}, MOST_DRAWS if self.tracer.constraints else 1)
        if found is None:
            raise SpaceError(f"none of {MOST_DRAWS} random networks satisfies the constraints of the space")
        return found

    def _draw(self, given: Mapping[int, int], tries: int) -> Codes | None:
        wanted = {self.labels[place]: code for place, code in given.items()}
        for _ in range(tries):
            places = dict(wanted)
            for quantity in self.tracer.derived:
                if quantity.name in wanted:
                    places |= quantity.draw(wanted[quantity.name], self._random, places) or {}
            codes = self.extended(
                [places[k] if k in places else self._random.randrange(len(of)) for k, of in self._candidates]
            )
            if all(codes[place] == code for place, code in given.items()) and self._allowed(codes):
                return codes
        return None

    def _allowed(self, codes: Codes) -> bool:
        return not self.tracer.constraints or self.tracer.constraints.allow(self.sample(codes))
