"""Finds on which choices each site of a model space depends, and its value for all combinations, by running it.

The labels of the choices above a site and in its arguments are known. Shapes may depend on further choices. Random
networks are run: if two of them agree in all labels that a site is known to depend on, but its values differ, then one
of the other labels matters. It is found by bisection between the two networks. Then combinations that no network has
had yet are run, for many sites at once, until random networks show nothing new.

A site may depend on a derived quantity (`derived_quantities.py`) instead of the choices from which it follows. If the
label that was found changes such a quantity, the quantity is taken first, and the label only if that does not suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import SpaceError
from .sites import Site, Trace
from .space_networks import Codes, SpaceNetworks
from .trace import Tracer

FIRST_NETWORKS, LAST_NETWORKS = 12, 8
MOST_NETWORKS = 3000
# Combinations of choices up to which the value of a site is found for each one.
MOST_COMBINATIONS = 1024
_TRIES = 30
_MOST_TRIES = 1000  # for combinations with a derived quantity, of which few may keep the constraints


@dataclass
class Function:
    """Value of a site by the choices on which it depends.

    Attributes:
        labels: Labels of the choices, and names of derived quantities.
        values: Value by the positions of the chosen candidates, or of the quantities' values; `None` where the site
            does not exist. Combinations that no network can have are missing.
    """

    labels: tuple[str, ...]
    values: dict[Codes, Hashable] = field(default_factory=dict)


class SpaceFunctions(SpaceNetworks):
    """Functions of all sites of a model space.

    Args:
        tracer: Tracer of the space.
        seed: Seed of the random networks.
        progress: Callback that receives a text, the number of networks that were run, and the number that are known
            to be needed.
        known: Traces of networks that were run before, by the positions of their candidates.

    Attributes:
        functions: Function of each site.
        traces: Trace of each network that was run.
        runs: Positions of the candidates of each network that was run, and of the values of its derived quantities, and
            the value of each of its sites.

    Raises:
        SpaceError: A network cannot be built or run, or a site depends on too many choices.
    """

    _REMEDY = "fit a table to whole networks instead (nni-proxyless latency fit, with the labels as columns)"

    def __init__(
        self,
        tracer: Tracer,
        *,
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
        known: Mapping[Codes, Trace] | None = None,
    ) -> None:
        super().__init__(tracer, seed)
        self.functions: dict[Site, Function] = {}
        self.runs: dict[Codes, dict[Site, Hashable]] = {}
        self._support: dict[str, tuple[str, ...]] = {label: (label,) for label in tracer.candidates}
        self._support |= {quantity.name: quantity.labels for quantity in tracer.derived}
        self._place = {label: place for place, label in enumerate(self.labels)}
        self._first: dict[Site, dict[Codes, Codes]] = {}  # a network of each known combination of each site
        self._given: dict[Site, frozenset[str]] = {}  # labels that follow from the places of the sites
        self._hints: dict[Site, str] = {}
        self._conflicts: list[tuple[Site, Codes, Codes]] = []
        self._progress = progress
        self.traces = dict(known or {})
        for codes, trace in self.traces.items():
            self._take(codes, trace)
        for _ in range(0 if known else FIRST_NETWORKS):
            self._run(self.draw())
        self._learn()

    def check_independent(self, labels: Sequence[str], site: Site) -> None:
        """Check that no two labels of a function follow from a common choice. Expectations assume independent labels.

        Raises:
            SpaceError: Two labels do.
        """
        support = [label for name in labels for label in self._support[name]]
        if len(set(support)) < len(support):
            raise SpaceError(self._too_many(site, list(dict.fromkeys(support))))

    def _run(self, codes: Codes) -> dict[Site, Hashable]:
        if codes in self.runs:
            return self.runs[codes]
        if len(self.runs) >= MOST_NETWORKS:
            raise SpaceError(
                f"{type(self.tracer.space).__name__} is not known after {MOST_NETWORKS} networks; let its modules "
                "depend on fewer choices"
            )
        self.traces[codes] = trace = self.tracer.run(self.sample(codes))
        self._take(codes, trace)
        if self._progress:
            self._progress("networks run", len(self.runs), len(self.runs) + self._missing())
        return self.runs[codes]

    def _take(self, codes: Codes, trace: Trace) -> None:
        """Learn from the trace of a network."""
        self.runs[codes] = trace.values
        self._hints |= trace.hints
        for site, labels in trace.labels.items():
            if not self._wanted(site):
                continue
            self._given[site] = self._given.get(site, frozenset()) | labels
            function = self.functions.get(site)
            if function is None:
                self._restart(site, labels)
            elif not labels <= set(function.labels):
                self._restart(site, labels | set(function.labels))
        for site in self.functions:
            self._note(site, codes)

    def _wanted(self, site: Site) -> bool:
        """Whether the function of a site is needed."""
        return True

    def _missing(self) -> int:
        """Number of networks that are still needed at least: the most combinations of a site that are not known."""
        missing = [math.prod(self._sizes(f.labels)) - len(f.values) for f in self.functions.values()]
        return max(missing, default=0)

    def _sizes(self, labels: Iterable[str]) -> list[int]:
        return [self.sizes[label] for label in labels]

    def _restart(self, site: Site, labels: Iterable[str]) -> None:
        """Let a site depend on other labels, and learn its values from all networks so far."""
        kept = self._needed(site, {label for label in labels if self.sizes[label] > 1})
        ordered = tuple(label for label in self.labels if label in kept)
        if math.prod(self._sizes(ordered)) > self._most_combinations(site):
            self._give_up(site, ordered)
            return
        self.functions[site] = Function(ordered)
        self._first[site] = {}
        for codes in self.runs:
            self._note(site, codes)

    def _most_combinations(self, site: Site) -> int:
        return MOST_COMBINATIONS

    def _give_up(self, site: Site, labels: Sequence[str]) -> None:
        """Do without a site that depends on too many choices."""
        raise SpaceError(self._too_many(site, labels))

    def _too_many(self, site: Site, labels: Sequence[str]) -> str:
        shown = ", ".join(labels[:4]) + (", …" if len(labels) > 4 else "")
        return (
            f"what module '{site.path}' of {type(self.tracer.space).__name__} computes depends on {len(labels)} "
            f"choices at once ({shown}), in {math.prod(self._sizes(labels))} combinations, and at most "
            f"{MOST_COMBINATIONS} are measured; {self._REMEDY}"
        )

    def _note(self, site: Site, codes: Codes) -> None:
        function = self.functions[site]
        key = tuple(codes[self._place[label]] for label in function.labels)
        value = self.runs[codes].get(site)
        if key not in function.values:
            function.values[key], self._first[site][key] = value, codes
        elif function.values[key] != value:
            self._conflicts.append((site, self._first[site][key], codes))

    def _learn(self) -> None:
        """Resolve conflicts and run missing combinations until random networks bring nothing new."""
        unreachable: set[tuple[Site, tuple[str, ...], Codes]] = set()
        while True:
            while self._conflicts:
                self._resolve(*self._conflicts.pop())
            if self._run_missing(unreachable):
                continue
            before = len(self.runs)
            known = {site: len(function.values) for site, function in self.functions.items()}
            for _ in range(LAST_NETWORKS):
                self._run(self.draw())
            same = known == {site: len(function.values) for site, function in self.functions.items()}
            if not self._conflicts and (same or len(self.runs) == before):
                return

    def _resolve(self, site: Site, one: Codes, other: Codes) -> None:
        """Find a label that explains why a site has different values in two networks."""
        function = self.functions[site]
        places = [self._place[label] for label in function.labels]
        if any(one[place] != other[place] for place in places):
            return  # explained meanwhile
        hint = self._hints.get(site)
        if hint and hint not in function.labels and self._explains(site, {*function.labels, hint}):
            self._restart(site, {*function.labels, hint})
            return
        value = self.runs[one].get(site)
        differing = [place for place in range(len(self.tracer.candidates)) if one[place] != other[place]]
        low, high = 0, len(differing)

        def between(count: int) -> Codes:
            mixed = [other[place] if place in differing[:count] else one[place] for place in range(len(one))]
            return self.extended(mixed[: len(self.tracer.candidates)])

        while high - low > 1:
            middle = (low + high) // 2
            codes = between(middle)
            if not self._allowed(codes):
                break
            if self._run(codes).get(site) == value:
                low = middle
            else:
                high = middle
        found = {self.labels[place] for place in differing[low:high]}
        changed = self._changed(between(low), between(high))
        if site not in self.functions:
            return
        known = set(self.functions[site].labels)
        new = {name for name in changed if name not in known}
        found = {min(new, key=self.labels.index)} if new and high - low == 1 else found
        if not found <= known:
            self._restart(site, known | found)
        if high - low == 1:  # other sites whose values differ between these two networks depend on it, too
            before, after = self.runs[between(low)], self.runs[between(high)]
            for each, of in list(self.functions.items()):
                if each not in self.functions:
                    continue
                unexplained = before.get(each) != after.get(each) and not found <= set(of.labels)
                if unexplained and (not changed or self._explains(each, {*of.labels, *found})):
                    self._restart(each, {*of.labels, *found})

    def _changed(self, one: Codes, other: Codes) -> list[str]:
        """Names of the derived quantities in which two networks differ."""
        first = len(self.tracer.candidates)
        return [self.labels[place] for place in range(first, len(one)) if one[place] != other[place]]

    def _needed(self, site: Site, labels: set[str]) -> set[str]:
        """Drop labels without which the values of a site are still explained, if there are derived quantities.

        A quantity is taken before the label that changes it, so one of both may turn out to have no effect.
        """
        if not self.tracer.derived:
            return labels
        for label in sorted(labels - self._given[site], key=self.labels.index, reverse=True):
            if self._explains(site, labels - {label}):
                labels = labels - {label}
        return labels

    def _explains(self, site: Site, labels: set[str]) -> bool:
        """Whether all networks so far that agree in some labels have the same value of a site."""
        places = [self._place[label] for label in labels]
        values: dict[Codes, Hashable] = {}
        return all(
            values.setdefault(tuple(codes[place] for place in places), of.get(site)) == of.get(site)
            for codes, of in self.runs.items()
        )

    def _run_missing(self, unreachable: set[tuple[Site, tuple[str, ...], Codes]]) -> bool:
        """Run networks with combinations that are not known yet; return whether there were any."""
        waiting = self._combinations(unreachable)
        if not waiting:
            return False
        while waiting and not self._conflicts:
            given: dict[int, int] = {}
            taken: set[str] = set()  # labels from which the given codes follow
            for _site, labels, key in waiting:
                wanted = {self._place[label]: code for label, code in zip(labels, key, strict=True)}
                if given and self.tracer.constraints:
                    break
                if any(given.get(place, code) != code for place, code in wanted.items()):
                    continue
                new = {label for name in labels if self._place[name] not in given for label in self._support[name]}
                if not new & taken:
                    given |= wanted
                    taken |= new
            rare = any(place >= len(self.tracer.candidates) for place in given)
            tries = (_MOST_TRIES if rare else _TRIES) if self.tracer.constraints else 1
            codes = self._draw(given, tries)
            if codes is None:
                unreachable.add(waiting.pop(0))
                continue
            self._run(codes)
            waiting = [
                (site, labels, key)
                for site, labels, key in waiting
                if site in self.functions
                and self.functions[site].labels == labels
                and key not in self.functions[site].values
            ]
        return True

    def _combinations(
        self, unreachable: set[tuple[Site, tuple[str, ...], Codes]]
    ) -> list[tuple[Site, tuple[str, ...], Codes]]:
        """List the combinations of all sites that are not known, in random order."""
        groups: dict[tuple[str, ...], Site] = {}
        for site, function in self.functions.items():
            groups.setdefault(function.labels, site)  # all sites of the same labels know the same combinations
        found = []
        for labels, site in groups.items():
            values = self.functions[site].values
            for key in _products(self._sizes(labels)):
                if key not in values and (site, labels, key) not in unreachable:
                    found.append((site, labels, key))
        self._random.shuffle(found)
        return found


def _products(sizes: list[int]) -> Iterable[Codes]:
    import itertools

    return itertools.product(*map(range, sizes))
