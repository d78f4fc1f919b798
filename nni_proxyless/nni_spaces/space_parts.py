"""The composition of a model space's networks, from the functions of its sites (`dependence.py`)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from ..latency.composition import Composition, Part
from ..latency.memory import Memory
from .dependence import Function, SpaceFunctions
from .sites import Site
from .space_networks import Codes


def composition_of(functions: SpaceFunctions, memory: Memory | None = None) -> Composition:
    """Collect which units the networks of a space call, by choices. The entries are numbers of `Tracer.units`.

    Args:
        functions: Functions of the space.
        memory: Peak memory of its networks.
    """
    candidates = functions.tracer.candidates
    by_labels: dict[tuple[str, ...], list[tuple[Site, Function]]] = {(): []}
    for site, function in functions.functions.items():
        by_labels.setdefault(function.labels, []).append((site, function))
    for site, function in functions.functions.items():
        functions.check_independent(function.labels, site)
    parts = [_part(functions, labels, sites) for labels, sites in sorted(by_labels.items())]
    used = {label for part in parts for label in part.labels}
    used |= {label for part in (memory.parts if memory else ()) for label in part.labels}
    derived = tuple(each for each in functions.tracer.derived if each.allowed < len(each.values) or each.name in used)
    return Composition({label: tuple(map(str, of)) for label, of in candidates.items()}, tuple(parts), derived, memory)


def numbered_anew(composition: Composition, kept: Sequence[int]) -> Composition:
    """Return a composition whose entries are positions in `kept`, a list of the former entries; others are dropped."""
    places = {number: place for place, number in enumerate(kept)}

    def renumbered(entries: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if entries is None else tuple(places[number] for number in entries if number in places)

    parts = [
        Part(part.labels, tuple(map(renumbered, part.entries)), part.parameters, part.multiply_adds)
        for part in composition.parts
    ]
    return replace(composition, parts=tuple(parts))


def _part(functions: SpaceFunctions, labels: tuple[str, ...], sites: Sequence[tuple[Site, Function]]) -> Part:
    units, batch = functions.tracer.units, functions.tracer.inputs.batch
    entries: list[tuple[int, ...] | None] = []
    parameters, multiply_adds = [], []
    for key in _combinations(functions, labels):
        called, own, computed = [], 0.0, 0.0
        known = all(key in function.values for _, function in sites)
        for site, function in sites if known else ():
            value = function.values[key]
            if value is None:
                continue
            if site.kind == "call":
                called.append(int(value))  # type: ignore[call-overload]
                computed += units[called[-1]].multiply_adds
            elif site.kind == "rest":
                computed += float(value)  # type: ignore[arg-type]
            else:
                own += float(value)  # type: ignore[arg-type]
        entries.append(tuple(called) if known else None)
        parameters.append(own)
        multiply_adds.append(computed / batch)
    return Part(labels, tuple(entries), tuple(parameters), tuple(multiply_adds))


def _combinations(functions: SpaceFunctions, labels: tuple[str, ...]) -> itertools.product[Codes]:
    return itertools.product(*(range(functions.sizes[label]) for label in labels))
