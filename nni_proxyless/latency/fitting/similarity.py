"""Prior similarity of the costs of candidates, before anything is measured.

The costs have a Gaussian prior. The covariance of candidate c in layer l and candidate c' in layer l' is
Σ_j s_j K_j((l, c), (l', c')), and cross-validation chooses the strengths s_j (`regression.py`). Each kernel K_j
expresses an assumption that holds for nearly all devices:

| kernel | assumption |
|---|---|
| independent | Each cost also has a part of its own. |
| same · near(τ) | A candidate has similar costs in nearby layers. |
| named · near(τ) | Candidates with similar names, such as `k3_e6` and `k5_e6`, have similar costs in nearby layers. |
| named · layer | Candidates with similar names have similar costs within a layer. |
| sized · near(τ) | The cost is linear in the features of the name, with similar coefficients in nearby layers. |
| sized · layer | The cost is linear in the features of the name, with separate coefficients for each layer. |

The features of a name are the numbers in it (kernel, expansion, groups) and their products.
near(τ) is exp(-|l - l'| / τ), with layers numbered in the order of the columns; τ = ∞ makes all layers equally near.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from ..arrays import FloatArray
from ..entries import Choice

_NUMBERED = re.compile(r"([a-zA-Z]+)(\d+(?:\.\d+)?)")
_NEAR, _FAR = 2.0, 8.0


def kernels(choices: Sequence[Choice]) -> list[FloatArray]:
    """Compute the kernels K_j over `m` choices.

    Args:
        choices: Candidates of all layers, in the order of the layers.

    Returns:
        Kernels, each of shape (m, m).
    """
    labels = list(dict.fromkeys(choice.layer for choice in choices))
    position = np.array([labels.index(choice.layer) for choice in choices], dtype=np.float64)
    distance = np.abs(position[:, None] - position)
    names = list(dict.fromkeys(choice.candidate for choice in choices))
    of = np.array([names.index(choice.candidate) for choice in choices])  # most names occur in many layers
    same = np.eye(len(names))[np.ix_(of, of)]
    near, far = np.exp(-distance / _NEAR), np.exp(-distance / _FAR)
    found = [np.eye(len(choices)), same, same * near, same * far]
    named = _named(names)[np.ix_(of, of)]
    if not np.array_equal(named, same):
        found += [named, named * near, named * (distance == 0)]
    sized = _sized(names)[np.ix_(of, of)]
    if sized.any():
        found += [sized, sized * near, sized * far, sized * (distance == 0)]
    return found


def residual_prior(choices: Sequence[Choice]) -> FloatArray:
    """Sum of the kernels over `m` choices, each scaled to a mean variance of 1, shape (m, m)."""
    return np.asarray(sum(kernel / np.mean(np.diag(kernel)) for kernel in kernels(choices)))


def _named(names: Sequence[str]) -> FloatArray:
    """Fraction of words that two names share (Jaccard index of their words), shape (m, m)."""
    words = [set(re.split(r"[^0-9a-zA-Z.]+", name)) for name in names]
    return np.array([[len(a & b) / len(a | b) for b in words] for a in words])


def _sized(names: Sequence[str]) -> FloatArray:
    """Inner products of features made of the numbers in names, shape (m, m).

    The features of a name are whether it has numbers, each number, and each product of two numbers. Every feature is
    scaled to a largest value of 1.
    """
    numbers = [{key: float(value) for key, value in _NUMBERED.findall(name)} for name in names]
    keys = sorted(set().union(*numbers))
    rows = np.array([[row.get(key, 0.0) for key in keys] for row in numbers]).reshape(len(names), len(keys))
    pairs = [rows[:, i] * rows[:, j] for i, j in itertools.combinations_with_replacement(range(len(keys)), 2)]
    features = np.stack([np.array([float(bool(row)) for row in numbers]), *rows.T, *pairs], axis=1)
    features /= np.maximum(np.abs(features).max(axis=0), 1e-12)
    return np.asarray(features @ features.T)
