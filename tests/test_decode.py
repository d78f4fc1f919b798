from __future__ import annotations

import itertools
import math

import torch

from nni_proxyless.decode import most_likely


def test_most_likely_is_the_best_of_all_architectures() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = {"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["p", "q", "r", "s"]}
    for _ in range(20):
        probs = {label: torch.softmax(torch.randn(len(c), generator=generator), 0) for label, c in candidates.items()}
        best = max(
            itertools.product(*(range(len(c)) for c in candidates.values())),
            key=lambda picks: math.prod(float(probs[k][i]) for k, i in zip(candidates, picks, strict=True)),
        )
        expected = {label: candidates[label][i] for label, i in zip(candidates, best, strict=True)}
        assert most_likely(probs, candidates) == expected


def test_ties_go_to_the_earlier_candidate() -> None:
    assert most_likely({"a": torch.tensor([0.2, 0.4, 0.4])}, {"a": [10, 20, 30]}) == {"a": 20}
