"""Random architectures of a space, for calibration and validation."""

from __future__ import annotations

import random
from collections.abc import Collection

from ..errors import InputError
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec


def random_architecture(spec: SpaceSpec, generator: random.Random) -> Architecture:
    """Draw an architecture in which all candidates of a layer are equally likely."""
    return Architecture.of_space(spec, {layer.label: generator.choice(layer.names) for layer in spec.layers})


def draw_architectures(
    spec: SpaceSpec, count: int, generator: random.Random, known: Collection[str] = ()
) -> list[Architecture]:
    """Draw distinct random architectures that are not among the known ones.

    Args:
        spec: Search space.
        count: Number of architectures.
        generator: Random number generator.
        known: `Architecture.candidate_names` of the architectures to exclude.

    Raises:
        InputError: The space has too few architectures left.
    """
    if count > spec.num_networks - len(set(known)):
        raise InputError(
            f"{count} networks were asked for, but space '{spec.name}' has {spec.num_networks} in all, "
            f"{len(set(known))} of which are taken"
        )
    drawn: dict[str, Architecture] = {}
    while len(drawn) < count:
        architecture = random_architecture(spec, generator)
        if architecture.candidate_names not in known:
            drawn[architecture.candidate_names] = architecture
    return list(drawn.values())


def calibration_architectures(spec: SpaceSpec, count: int, seed: int) -> list[Architecture]:
    """Return the calibration networks: the smallest and the largest by multiply-adds, then random ones."""
    ends = {}
    for pick in (min, max):
        choices = {}
        for layer in spec.layers:
            sizes = {name: operator.multiply_adds if operator else 0 for name, operator in layer.candidates.items()}
            choices[layer.label] = pick(sizes, key=sizes.__getitem__)
        architecture = Architecture.of_space(spec, choices)
        ends[architecture.candidate_names] = architecture
    left = max(0, count - len(ends))
    return (list(ends.values()) + draw_architectures(spec, left, random.Random(f"calibration {seed}"), ends))[:count]
