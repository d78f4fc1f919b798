"""On which choices each site of a model space depends, and its value for all combinations of them, found by running it.

The labels of the choices above a site and in its arguments are known. Shapes may depend on further choices. Random
networks are run: if two of them agree in all labels that a site is known to depend on, but its values differ, then one
of the other labels matters. It is found by bisection between the two networks. Then the combinations that no network
had yet are run, many sites at once, until random networks bring nothing new.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SpaceError
from ..supernet.constraints import MOST_DRAWS
from .trace import Site, Tracer

Codes = tuple[int, ...]
FIRST_NETWORKS, LAST_NETWORKS = 12, 8
MOST_NETWORKS = 3000
# Combinations of choices up to which the value of a site is found for each one.
MOST_COMBINATIONS = 1024
_TRIES = 30


@dataclass
class Function:
    """Value of a site by the choices on which it depends.

    Attributes:
        labels: Labels of the choices.
        values: Value by the positions of the chosen candidates; `None` where the site does not exist. Combinations
            that no network can have are missing.
    """

    labels: tuple[str, ...]
    values: dict[Codes, Hashable] = field(default_factory=dict)


class SpaceFunctions:
    """Functions of all sites of a model space.

    Args:
        tracer: Tracer of the space.
        seed: Seed of the random networks.
        progress: Callback that receives a text, the number of networks that were run, and the number that are known
            to be needed.

    Attributes:
        functions: Function of each site.
        runs: Positions of the candidates of each network that was run, and the value of each of its sites.

    Raises:
        SpaceError: A network cannot be built or run, or a site depends on too many choices.
    """

    def __init__(
        self, tracer: Tracer, *, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
    ) -> None:
        self.tracer = tracer
        self.labels = list(tracer.candidates)
        self.functions: dict[Site, Function] = {}
        self.runs: dict[Codes, dict[Site, Hashable]] = {}
        self._place = {label: place for place, label in enumerate(self.labels)}
        self._first: dict[Site, dict[Codes, Codes]] = {}  # a network of each known combination of each site
        self._conflicts: list[tuple[Site, Codes, Codes]] = []
        self._random = random.Random(f"model space {seed}")
        self._progress = progress
        for _ in range(FIRST_NETWORKS):
            self._run(self.draw())
        self._learn()

    def sample(self, codes: Codes) -> dict[str, Any]:
        """Return the NNI sample of a network that is given by the positions of its candidates."""
        return {label: of[code] for (label, of), code in zip(self.tracer.candidates.items(), codes, strict=True)}

    def codes(self, sample: Mapping[str, Any]) -> Codes:
        """Return the positions of the candidates of an NNI sample."""
        return tuple(of.index(sample[label]) for label, of in self.tracer.candidates.items())

    def draw(self, given: Mapping[int, int] | None = None) -> Codes:
        """Draw a network that keeps the constraints of the space.

        Args:
            given: Positions of candidates, by the position of the label, that are not drawn.

        Raises:
            SpaceError: None was found.
        """
        found = self._draw(given or {}, MOST_DRAWS if self.tracer.constraints else 1)
        if found is None:
            raise SpaceError(f"none of {MOST_DRAWS} random networks keeps the constraints of the space")
        return found

    def random_runs(self, count: int) -> None:
        """Run random networks until `count` networks have been run."""
        for _ in range(3 * count):
            if len(self.runs) >= count:
                return
            self._run(self.draw())

    def _draw(self, given: Mapping[int, int], tries: int) -> Codes | None:
        for _ in range(tries):
            codes = tuple(
                given[place] if place in given else self._random.randrange(len(of))
                for place, of in enumerate(self.tracer.candidates.values())
            )
            if self._allowed(codes):
                return codes
        return None

    def _allowed(self, codes: Codes) -> bool:
        return not self.tracer.constraints or self.tracer.constraints.allow(self.sample(codes))

    def _run(self, codes: Codes) -> dict[Site, Hashable]:
        if codes in self.runs:
            return self.runs[codes]
        if len(self.runs) >= MOST_NETWORKS:
            raise SpaceError(
                f"{type(self.tracer.space).__name__} is not known after {MOST_NETWORKS} networks; let its modules "
                "depend on fewer choices"
            )
        trace = self.tracer.run(self.sample(codes))
        self.runs[codes] = trace.values
        for site, labels in trace.labels.items():
            function = self.functions.get(site)
            if function is None:
                self._restart(site, labels)
            elif not labels <= set(function.labels):
                self._restart(site, labels | set(function.labels))
        for site in self.functions:
            self._note(site, codes)
        if self._progress:
            self._progress("running networks", len(self.runs), len(self.runs) + self._missing())
        return trace.values

    def _missing(self) -> int:
        """Number of networks that are still needed at least: the most combinations of a site that are not known."""
        missing = [math.prod(self._sizes(f.labels)) - len(f.values) for f in self.functions.values()]
        return max(missing, default=0)

    def _sizes(self, labels: Iterable[str]) -> list[int]:
        return [len(self.tracer.candidates[label]) for label in labels]

    def _restart(self, site: Site, labels: Iterable[str]) -> None:
        """Let a site depend on other labels, and learn its values from all networks so far."""
        ordered = tuple(
            label for label in self.labels if label in set(labels) and len(self.tracer.candidates[label]) > 1
        )
        combinations = math.prod(self._sizes(ordered))
        if combinations > MOST_COMBINATIONS:
            shown = ", ".join(ordered[:4]) + (", …" if len(ordered) > 4 else "")
            raise SpaceError(
                f"what module '{site.path}' of {type(self.tracer.space).__name__} computes depends on {len(ordered)} "
                f"choices at once ({shown}), in {combinations} combinations, and at most {MOST_COMBINATIONS} are "
                "measured; fit a table to whole networks instead (nni-proxyless latency fit, with the labels as "
                "columns)"
            )
        self.functions[site] = Function(ordered)
        self._first[site] = {}
        for codes in self.runs:
            self._note(site, codes)

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
        value = self.runs[one].get(site)
        differing = [place for place in range(len(one)) if one[place] != other[place]]
        low, high = 0, len(differing)

        def between(count: int) -> Codes:
            return tuple(other[place] if place in differing[:count] else one[place] for place in range(len(one)))

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
        known = set(self.functions[site].labels)
        if not found <= known:
            self._restart(site, known | found)
        if high - low == 1:  # other sites whose values differ between the same two networks depend on it, too
            before, after = self.runs[between(low)], self.runs[between(high)]
            for each, of in list(self.functions.items()):
                if before.get(each) != after.get(each) and not found <= set(of.labels):
                    self._restart(each, set(of.labels) | found)

    def _run_missing(self, unreachable: set[tuple[Site, tuple[str, ...], Codes]]) -> bool:
        """Run networks with combinations that are not known yet; return whether there were any."""
        waiting = self._combinations(unreachable)
        if not waiting:
            return False
        while waiting and not self._conflicts:
            given: dict[int, int] = {}
            for _site, labels, key in waiting:
                wanted = {self._place[label]: code for label, code in zip(labels, key, strict=True)}
                if all(given.get(place, code) == code for place, code in wanted.items()) and (
                    not self.tracer.constraints or not given
                ):
                    given |= wanted
            codes = self._draw(given, _TRIES if self.tracer.constraints else 1)
            if codes is None:
                unreachable.add(waiting.pop(0))
                continue
            self._run(codes)
            waiting = [
                (site, labels, key)
                for site, labels, key in waiting
                if self.functions[site].labels == labels and key not in self.functions[site].values
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
