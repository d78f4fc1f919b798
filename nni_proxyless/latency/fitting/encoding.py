"""One-hot encoding of the candidates of all layers, and its statistics over random networks of the space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..arrays import FloatArray
from ..costs import SpaceCosts
from ..entries import Choice


class Encoding:
    """One-hot encoding of the candidates of all layers; `m` is their total number.

    Args:
        candidates: Candidate names of each layer, by layer label.

    Attributes:
        choices: Candidates of all layers, in the order of the code.
        candidates: Candidate names of each layer, by layer label.
    """

    def __init__(self, candidates: Mapping[str, Sequence[str]]) -> None:
        self.choices = [Choice(label, name) for label, names in candidates.items() for name in names]
        self.candidates = {label: tuple(names) for label, names in candidates.items()}

    def features(self, layers: Mapping[str, np.ndarray[Any, Any]]) -> FloatArray:
        """Encode `n` networks.

        Args:
            layers: Names of the chosen candidates, shape (n,), by layer label.

        Returns:
            One-hot choices, shape (n, m).
        """
        return np.concatenate(
            [np.asarray(layers[k])[:, None] == np.array(names) for k, names in self.candidates.items()], axis=1
        ).astype(np.float64)

    def costs(self, values: FloatArray, intercept: float) -> SpaceCosts:
        """Convert the costs of all choices to the costs of a space.

        The cost of each layer's cheapest candidate is moved to the fixed cost, so that this candidate costs 0.

        Args:
            values: Cost of each choice, shape (m,).
            intercept: Cost that every network has.
        """
        fixed, layers, start = intercept, {}, 0
        for label, names in self.candidates.items():
            part = values[start : start + len(names)]
            start += len(names)
            fixed += float(part.min())
            layers[label] = tuple((part - part.min()).tolist())
        return SpaceCosts(fixed, self.candidates, layers)

    def mean(self) -> FloatArray:
        """Mean code of random networks, whose candidates are equally likely: the probability of each choice, (m,)."""
        return np.concatenate([np.full(len(names), 1.0 / len(names)) for names in self.candidates.values()])

    def covariance(self) -> FloatArray:
        """Covariance of the codes of random networks, shape (m, m). Layers are independent of each other."""
        probs = self.mean()
        layer = np.repeat(np.arange(len(self.candidates)), [len(names) for names in self.candidates.values()])
        same = layer[:, None] == layer
        return np.asarray(np.diag(probs) - same * np.outer(probs, probs))
