"""Peak memory of all networks of a model space, from the sites of `memory_sites.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from ..errors import SpaceError
from ..latency.arrays import FloatArray
from ..latency.memory import Memory, MemoryPart
from .dependence import Function, SpaceFunctions
from .memory_sites import ENTRY, EXACT, HELD, INNER, LOCAL, MADE
from .sites import Site, Trace
from .space_networks import Codes

# Combinations of choices up to which an exact term is found for each one; bounds stand for terms of more.
MOST_EXACT = 128
# Networks that are run for the memory alone.
MOST_RUNS = 500
# Combinations up to which the terms of a part are added, instead of the largest value of a term.
MOST_OF_PART = 4096
_ABSENT = -math.inf  # in an array of bytes: the network has no such part


class MemoryFunctions(SpaceFunctions):
    """Functions of the memory of a model space.

    Args:
        first: Functions of its other sites, whose networks are not run again.
        progress: Progress callback; see `SpaceFunctions`.

    Attributes:
        bounded: Frames in which bounds stand for the exact sites, because one of these depends on too many choices.

    Raises:
        SpaceError: The memory of a network is not known, or a bound depends on too many choices, too.
    """

    _REMEDY = "reduce the choices of the space, such as its widths, its depths, or the nodes of a cell"

    def __init__(self, first: SpaceFunctions, progress: Callable[[str, int, int], None] | None = None) -> None:
        self.bounded: dict[str, None] = {}
        self._most = len(first.traces) + MOST_RUNS
        super().__init__(first.tracer, seed=1, progress=progress, known=first.traces)

    def _take(self, codes: Codes, trace: Trace) -> None:
        if trace.memory is None:
            raise SpaceError(
                f"the memory of {type(self.tracer.space).__name__} is not known: {self.tracer.notes.unknown}"
            )
        super()._take(codes, trace.memory)

    def _run(self, codes: Codes) -> dict[Site, Hashable]:
        if codes not in self.runs and len(self.runs) >= self._most:
            raise SpaceError(
                f"the memory of {type(self.tracer.space).__name__} is not known after {self._most} networks; "
                f"{self._REMEDY}"
            )
        return super()._run(codes)

    def _wanted(self, site: Site) -> bool:
        frame = site.path if site.kind == ENTRY else self.tracer.notes.frames[site.path]
        return (frame in self.bounded) != (site.kind in EXACT)

    def _most_combinations(self, site: Site) -> int:
        return MOST_EXACT if site.kind in EXACT else super()._most_combinations(site)

    def _give_up(self, site: Site, labels: Sequence[str]) -> None:
        if site.kind not in EXACT:
            super()._give_up(site, labels)
        self.bounded[self.tracer.notes.frames[site.path]] = None
        self.functions = {each: of for each, of in self.functions.items() if self._wanted(each)}
        self._conflicts = [conflict for conflict in self._conflicts if self._wanted(conflict[0])]
        known: dict[Site, frozenset[str]] = {}
        for trace in self.traces.values():
            for each, given in trace.memory.labels.items() if trace.memory is not None else ():
                if each not in self.functions and self._wanted(each) and each.kind not in EXACT:
                    known[each] = known.get(each, frozenset()) | given
        for each, given in known.items():
            self._given[each] = self._given.get(each, frozenset()) | given
            self._restart(each, given)


def memory_of(first: SpaceFunctions, progress: Callable[[str, int, int], None] | None = None) -> Memory:
    """Find the peak memory of all networks of a space.

    Args:
        first: Functions of the space.
        progress: Progress callback; see `SpaceFunctions`.

    Raises:
        SpaceError: It is not known, or depends on too many choices.
    """
    return _Parts(MemoryFunctions(first, progress)).memory()


class _Array:
    """Bytes by the choices on which they depend, with an axis for each label."""

    def __init__(self, labels: Sequence[str], values: FloatArray) -> None:
        needed = [axis for axis in range(len(labels)) if not bool(np.all(values == values.take([0], axis=axis)))]
        self.labels = tuple(labels[axis] for axis in needed)
        self.values = values[tuple(slice(None) if axis in needed else 0 for axis in range(len(labels)))]

    def over(self, labels: Sequence[str]) -> FloatArray:
        """Return the values with an axis for each of some labels, of size 1 where they do not depend on it."""
        order = [label for label in labels if label in self.labels]
        values = self.values.transpose([self.labels.index(label) for label in order])
        return values.reshape([values.shape[order.index(label)] if label in order else 1 for label in labels])

    def without(self, labels: Iterable[str]) -> _Array:
        """Return the largest values over the choices of some labels."""
        gone = tuple(axis for axis, label in enumerate(self.labels) if label in set(labels))
        kept = [label for axis, label in enumerate(self.labels) if axis not in gone]
        return _Array(kept, self.values.max(axis=gone))


class _Parts:
    def __init__(self, functions: MemoryFunctions) -> None:
        self._functions, self._notes = functions, functions.tracer.notes
        self._bounded: dict[str, None] = {}
        self._arrays: dict[Site, _Array] = {}

    def memory(self) -> Memory:
        """Return the largest memory over all leaves, by choices."""
        leaves = [Site(LOCAL, site.path) for site in self._functions.functions if site.kind in (LOCAL, INNER)]
        found: dict[tuple[str, ...], FloatArray] = {}
        for leaf in leaves:
            array = self._sum(leaf, self._terms(leaf))
            ordered = sorted(array.labels, key=self._functions.labels.index)
            values = array.over(ordered)
            known = found.get(tuple(ordered))
            found[tuple(ordered)] = values if known is None else np.maximum(known, values)
        # Every network needs the least of each part, so what is below the largest of these changes nothing.
        least = max((float(values.min()) for values in found.values()), default=0.0)
        parts = [MemoryPart((), (max(least, 0.0),))]
        for labels, values in sorted(found.items(), key=lambda of: (len(of[0]), of[0])):
            if labels and values.max() > least:
                parts.append(MemoryPart(labels, tuple(np.where(values > least, values, 0.0).ravel().tolist())))
        return Memory(tuple(parts), tuple(self._bounded))

    def _terms(self, leaf: Site) -> list[_Array]:
        """Return the terms of a leaf, in which bounds stand for what depends on too many choices."""
        terms: list[_Array] = []
        kind, path = LOCAL, leaf.path
        while path in self._notes.frames:
            site, frame = Site(kind, path), self._notes.frames[path]
            if frame not in self._functions.bounded:
                terms.append(self._array(site))
                kind, path = HELD, frame
                continue
            self._bounded[self._notes.places.get(frame, type(self._functions.tracer.space).__name__)] = None
            if kind == LOCAL:
                terms.append(self._array(Site(INNER, path)))
            place = self._notes.places.get(frame, "")
            for made in [other for other, of in self._notes.frames.items() if of == frame]:
                if self._notes.may_be_held(place, self._notes.places[made], self._notes.places[path]):
                    terms.append(self._array(Site(MADE, made)))
            terms.append(self._array(Site(ENTRY, frame)))
            kind, path = HELD, self._notes.frames.get(frame, "")  # the entry has what is held over the frame
        return terms

    def _array(self, site: Site) -> _Array:
        if site not in self._arrays:
            self._arrays[site] = self._filled(site, self._functions.functions.get(site, Function(())))
        return self._arrays[site]

    def _filled(self, site: Site, function: Function) -> _Array:
        """Return the values of a site for all combinations."""
        sizes = [self._functions.sizes[label] for label in function.labels]
        absent = _ABSENT if site.kind in (LOCAL, INNER) else 0.0
        known = {key: absent if value is None else float(value) for key, value in function.values.items()}  # type: ignore[arg-type]
        # No network was found with the other combinations. The largest value is safe, if there is one after all.
        most = max(known.values(), default=absent)
        keys: Iterable[Codes] = itertools.product(*map(range, sizes))
        return _Array(function.labels, np.array([known.get(key, most) for key in keys]).reshape(sizes))

    def _sum(self, leaf: Site, terms: Sequence[_Array]) -> _Array:
        """Add terms. If they depend on too many choices together, the largest value stands for some of them."""
        total = terms[0]
        for term in sorted(terms[1:], key=lambda each: each.values.size):
            labels = list(dict.fromkeys([*total.labels, *term.labels]))
            new = [label for label in labels if label not in total.labels]
            while math.prod(self._functions.sizes[label] for label in labels) > MOST_OF_PART:
                self._bounded[self._notes.places[leaf.path].strip()] = None
                dropped = new.pop()
                labels.remove(dropped)
                term = term.without([dropped])
            total = _Array(labels, total.over(labels) + term.over(labels))
        return total
