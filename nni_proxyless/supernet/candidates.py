"""Candidates of a label: the values that an NNI sample may assign to it. Each value is one path of the supernet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Categorical, CategoricalMultiple, Constraint, LabeledMutable, Mutable, MutableSymbol
from nni.nas.nn.pytorch import ModelSpace

from ..errors import SpaceError

MAX_INPUT_SUBSETS = 256


def labels_of(space: ModelSpace) -> dict[str, Any]:
    """Return the mutables of a space by label, as NNI's `ModelSpace.simplify()` does.

    Raises:
        SpaceError: Two choices have the same label, but differ.
    """
    try:
        return dict(space.simplify())
    except ValueError:
        first: dict[str, LabeledMutable] = {}
        for mutable in space.leaf_mutables(lambda of: isinstance(of, MutableSymbol)):
            known = first.setdefault(mutable.label, mutable)
            if not mutable.equals(known):
                values = [getattr(of, "values", type(of).__name__) for of in (known, mutable)]
                raise SpaceError(
                    f"two choices of {type(space).__name__} have the label '{mutable.label}', but one has "
                    f"{values[0]} and the other {values[1]}; give them the same candidates, or different labels"
                ) from None
        raise


def searched(mutables: Mapping[str, Mutable]) -> list[str]:
    """Return the labels that a sample assigns a value to: all except those of constraints."""
    return [label for label, mutable in mutables.items() if not isinstance(mutable, Constraint)]


def path_candidates(mutable: Mutable) -> list[Any]:
    """Return the values that a sample may assign to the label of a mutable. Each value is one path.

    Raises:
        SpaceError: The mutable is not categorical, or it has too many subsets to search each as a path.
    """
    if isinstance(mutable, Categorical):
        return list(mutable.values)
    if isinstance(mutable, CategoricalMultiple):
        n = len(mutable.values)
        sizes = range(1, n + 1) if mutable.n_chosen is None else (mutable.n_chosen,)
        subsets = (list(s) for size in sizes for s in itertools.combinations(mutable.values, size))
        listed = list(itertools.islice(subsets, MAX_INPUT_SUBSETS + 1))
        if len(listed) > MAX_INPUT_SUBSETS:
            raise SpaceError(
                f"InputChoice '{mutable.label}' of {n} inputs has more than {MAX_INPUT_SUBSETS} subsets to choose; "
                "give it fewer inputs or a smaller n_chosen"
            )
        return listed
    raise SpaceError(
        f"'{getattr(mutable, 'label', mutable)}' is a {type(mutable).__name__}; ProxylessNAS searches choices "
        "from finite lists only, such as nni.choice"
    )


def probs_by_candidate(candidates: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """Map candidates to values, with keys in NNI's form: the number of a single input, a tuple of several inputs."""

    def key(candidate: Any) -> Any:
        if isinstance(candidate, list):
            return candidate[0] if len(candidate) == 1 else tuple(candidate)
        return candidate

    return {key(candidate): value for candidate, value in zip(candidates, values, strict=True)}
