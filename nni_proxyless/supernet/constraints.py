"""Constraints of a model space: which combinations of its choices are networks of the space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Constraint, Mutable

from ..errors import RunError
from .binary_gates import PathSample
from .gate import Gate

MOST_DRAWS = 10_000


@dataclass(frozen=True)
class Constraints:
    """Constraints that NNI's samples of a space must satisfy.

    Attributes:
        of: Constraints; none for most spaces.
    """

    of: tuple[Constraint, ...] = ()

    @classmethod
    def in_space(cls, mutables: Mapping[str, Mutable]) -> Constraints:
        """Collect the constraints of a space, given by its labels as returned by NNI's `ModelSpace.simplify()`."""
        return cls(tuple(mutable for mutable in mutables.values() if isinstance(mutable, Constraint)))

    def __bool__(self) -> bool:
        return bool(self.of)

    def allow(self, choices: Mapping[str, Any]) -> bool:
        """Whether a network satisfies all constraints.

        Args:
            choices: Mapping from labels to candidates.
        """
        return all(constraint.check_contains(dict(choices)) is None for constraint in self.of)

    def draw(self, gates: Mapping[str, Gate], draw: Callable[[Gate], None]) -> None:
        """Draw the paths of all gates again until the active paths form a network of the space.

        Sampled inactive paths are only kept if they form such a network together with the active paths of all other
        gates.

        Args:
            gates: Gates by label.
            draw: Function that draws the paths of one gate.

        Raises:
            RunError: No network was found.
        """
        for _ in range(MOST_DRAWS if self.of else 1):
            for gate in gates.values():
                draw(gate)
            if not self.of:
                return
            choices = {label: gate.candidates[gate.sample.active] for label, gate in gates.items()}
            if self.allow(choices):
                break
        else:
            raise RunError(f"none of {MOST_DRAWS} sampled networks satisfies the constraints of the space")
        for label, gate in gates.items():
            others = [i for i in gate.sample.inactive if self.allow({**choices, label: gate.candidates[i]})]
            gate.sample = PathSample(gate.sample.active, tuple(others))
