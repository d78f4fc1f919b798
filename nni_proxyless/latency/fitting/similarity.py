"""How alike the costs of two candidates of two layers are expected to be, before anything is measured.

The cost of candidate c in layer l is a Gaussian with covariance Σ_j s_j K_j((l, c), (l', c')); the strengths s_j are
left to cross-validation (`regression.py`). Each K_j says one thing that holds for nearly all devices:

| kernel | says |
|---|---|
| independent | each cost is its own |
| same · near(τ) | a candidate costs about as much in layers near by |
| named · near(τ) | candidates with like names (`k3_e6` and `k5_e6`) do |
| sized · near(τ) | the numbers in names (kernel, expansion, groups) and their products count linearly |
| sized · layer | they count in each layer on its own |

near(τ) = exp(-|l - l'| / τ), with layers in the order of the columns.
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
    """The kernels K_j over the `m` choices, each of shape (m, m)."""
    labels = list(dict.fromkeys(choice.layer for choice in choices))
    position = np.array([labels.index(choice.layer) for choice in choices], dtype=np.float64)
    distance = np.abs(position[:, None] - position)
    names = [choice.candidate for choice in choices]
    same = np.array([[float(a == b) for b in names] for a in names])
    near, far = np.exp(-distance / _NEAR), np.exp(-distance / _FAR)
    found = [np.eye(len(names)), same, same * near, same * far]
    named = _named(names)
    if not np.array_equal(named, same):
        found += [named, named * near, named * (distance == 0)]
    sized = _sized(names)
    if sized.any():
        found += [sized, sized * near, sized * far, sized * (distance == 0)]
    return found


def _named(names: Sequence[str]) -> FloatArray:
    """Part of the name's words that two candidates share."""
    words = [set(re.split(r"[^0-9a-zA-Z.]+", name)) for name in names]
    return np.array([[len(a & b) / len(a | b) for b in words] for a in words])


def _sized(names: Sequence[str]) -> FloatArray:
    """Inner products of the numbers in names: whether there are any, each, and each times each."""
    numbers = [{key: float(value) for key, value in _NUMBERED.findall(name)} for name in names]
    keys = sorted(set().union(*numbers))
    rows = np.array([[row.get(key, 0.0) for key in keys] for row in numbers]).reshape(len(names), len(keys))
    pairs = [rows[:, i] * rows[:, j] for i, j in itertools.combinations_with_replacement(range(len(keys)), 2)]
    features = np.stack([np.array([float(bool(row)) for row in numbers]), *rows.T, *pairs], axis=1)
    features /= np.maximum(np.abs(features).max(axis=0), 1e-12)
    return np.asarray(features @ features.T)
