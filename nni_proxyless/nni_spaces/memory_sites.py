"""Which part of a network's peak memory depends on which choices, as values of sites.

A network is a tree of calls: modules with choices inside are frames, and the units in them are leaves. What a frame
computes between its calls is a leaf, too. The memory while a leaf runs is the sum of

* `local`: what is alive at its largest moment, without what its frame only holds,
* `held`: for each frame around it but the network, what is alive before and after that frame's call, without what is
  alive before and after the call of the next frame.

So the sum is exact, and each of its terms depends on few choices: a term that is held over a block is the same for all
that happens inside the block. Where a term depends on too many choices, such as on all inputs that the nodes of a cell
choose, it is bounded from above by others, which depend on few:

* `inner`: the largest moment of a leaf if nothing that it reads is ever released, without what it reads,
* `made`: what a call leaves to later ones in its frame,
* `entry`: what is alive when a frame begins, and its arguments, without what is only held over the frame around it. It
  also stands for what is `held` over that frame.

`MemoryNotes` says which calls may read what a call has made, in any network. What no later call may read is not held.
Bounds also count what no result of the network depends on, because that follows from many choices, too: a cell may
ignore one of its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .liveness import Liveness, LivenessRecorder
from .sites import Site, Trace
from .space_paths import Origin, labels_inside

LOCAL, HELD, INNER, MADE, ENTRY = "local memory", "held memory", "inner memory", "made memory", "entry memory"
EXACT = (LOCAL, HELD)
_END = "the end"


@dataclass
class Call:
    """A call of a module, or what a frame computes between two calls.

    Attributes:
        path: Place of its sites.
        place: The same without the names of candidates, for `MemoryNotes`.
        mark: Suffix of both, which tells repeated calls apart.
        labels: Labels on which it depends because of its place and, in units, its arguments.
        hint: Label on which it is likely to depend, too.
        start: Position of its first operation.
        end: Position behind its last operation.
        calls: Calls inside it, in order.
        counts: Number of calls by place.
        whole: Whether it is a leaf.
        given: Buffers of its arguments.
        returned: Buffers of its results.
    """

    path: str
    place: str
    mark: str
    labels: frozenset[str]
    hint: str | None
    start: int
    end: int
    calls: list[Call] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    whole: bool = False
    given: Sequence[int] = ()
    returned: Sequence[int] = ()


@dataclass
class MemoryNotes:
    """What all networks that were run have in common.

    Attributes:
        frames: Path of the frame of each call, `""` for those of the network itself.
        places: Place of each call, by path.
        orders: The different orders of the calls in each frame, by the frame's place.
        readers: By frame and call, the calls that were the last ones to read what it has made.
        sites: Each site, and its labels, so that all runs share them.
        unknown: Why the memory of a network is not known; empty if it is known.
    """

    frames: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    orders: dict[str, dict[tuple[str, ...], dict[str, int]]] = field(default_factory=dict)
    readers: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    sites: dict[tuple[str, str, frozenset[str]], tuple[Site, frozenset[str]]] = field(default_factory=dict)
    unknown: str = ""

    def may_be_held(self, frame: str, made: str, during: str) -> bool:
        """Whether, in any network, what a call has made may be alive during another call of the same frame.

        Args:
            frame: Place of the frame.
            made: Place of the call that may have made it.
            during: Place of the other call.
        """
        if made == during or self._always_before(frame, during, made):
            return False
        readers = self.readers.get(frame, {}).get(made, set())
        return any(reader == _END or not self._always_before(frame, reader, during) for reader in readers)

    def _always_before(self, frame: str, one: str, other: str) -> bool:
        if one == other:
            return False
        both = [order for order in self.orders[frame].values() if one in order and other in order]
        return bool(both) and all(order[one] < order[other] for order in both)


class MemorySites:
    """Calls of one run of a network, while it is recorded.

    Args:
        recorder: Recorder of the run.
    """

    def __init__(self, recorder: LivenessRecorder) -> None:
        self._recorder = recorder
        self._root: Call | None = None
        self._stack: list[Call] = []
        self._returned: set[int] = set()

    @property
    def _now(self) -> int:
        return len(self._recorder.liveness.events)

    def enter(self, origin: Origin, given: Any, *, whole: bool) -> None:
        """Note the beginning of a call.

        Args:
            origin: Place of the module.
            given: Arguments of the call.
            whole: Whether it is a unit.
        """
        labels = set(origin.labels)
        if whole and origin.module is not None:
            labels |= labels_inside(origin.module)
        path, place, mark = origin.path, origin.place, ""
        if self._stack:
            frame = self._stack[-1]
            inside = not frame.place or place.startswith(f"{frame.place}.")
            if not inside:  # a module that belongs to another one
                path, place = f"{path} in {frame.path}", f"{place} in {frame.place}"
            frame.counts[place] = number = frame.counts.get(place, 0) + 1
            mark = frame.mark + (f" #{len(self._stack)}.{number}" if number > 1 else "")
        call = Call(path, place, mark, frozenset(labels), origin.hint, self._now, self._now, whole=whole)
        call.given = self._recorder.buffers_of(given)
        if self._stack:
            self._stack[-1].calls.append(call)
        elif self._root is None:
            self._root = call
        self._stack.append(call)

    def leave(self, results: Any) -> None:
        """Note the end of the last call that has begun.

        Args:
            results: What it returned.
        """
        call = self._stack.pop()
        call.end, call.returned = self._now, self._recorder.buffers_of(results)
        self._returned.update(call.returned)

    def trace(self, results: Any, notes: MemoryNotes) -> Trace | None:
        """Return the sites of the run, and add what it shows to the notes.

        Args:
            results: What the network returned.
            notes: Notes of all runs.

        Returns:
            Sites; `None` if no tensor was found in the results.
        """
        if self._root is None or not self._recorder.buffers_of(results):
            notes.unknown = "its results have no tensors that depend on its inputs"
            return None
        exact, most = self._recorder.finish(results), self._recorder.finish(results, self._returned)
        return _Reading(exact, most, notes).trace(self._root)


class _Reading:
    """Values of all sites of a run.

    Args:
        exact: What is alive when.
        most: The same with what the calls return and nothing reads.
        notes: Notes of all runs.
    """

    def __init__(self, exact: Liveness, most: Liveness, notes: MemoryNotes) -> None:
        self._exact, self._most, self._notes = exact, most, notes
        self._total = exact.alive(exact.used(), 0, len(exact.events))
        self._found = Trace()

    def trace(self, root: Call) -> Trace:
        self._frame(root, None, frozenset(), frozenset())
        return self._found

    def _frame(self, frame: Call, around: Call | None, held: frozenset[int], held_around: frozenset[int]) -> None:
        """Add the sites of a frame.

        Args:
            frame: Frame.
            around: Frame around it; `None` for the network.
            held: Buffers that are alive before and after its call; none for the network.
            held_around: The same for the frame around it.
        """
        name, place = frame.path + frame.mark, frame.place + frame.mark
        self._add(ENTRY, name, frame, self._exact.bytes(self._entry(frame, around, held_around)))
        calls = _with_rests(frame)
        readers = self._notes.readers.setdefault(place, {})
        names = tuple(call.place + call.mark for call in calls)
        orders = self._notes.orders.setdefault(place, {})
        orders.setdefault(names, {key: number for number, key in enumerate(names)})
        for call in calls:
            path = call.path + call.mark
            self._notes.frames[path], self._notes.places[path] = name, call.place + call.mark
            born = self._most.filled(call.start, call.end)
            left = {b for b in born if self._most.last[b] >= call.end}.union(b for b in call.returned if b in born)
            self._add(MADE, path, call, self._most.bytes(left))
            for last in {self._most.last[buffer] for buffer in left}:
                if last >= call.end:
                    reader = next((names[i] for i, each in enumerate(calls) if last < each.end), _END)
                    readers.setdefault(call.place + call.mark, set()).add(reader)
            if call.whole:
                moments = self._total[call.start : call.end]
                self._add(LOCAL, path, call, max(moments) - self._exact.bytes(held) if moments else 0)
                inner = self._most.alive(born, call.start, call.end, kept=True)
                self._add(INNER, path, call, max(inner, default=0))
                continue
            across = held  # if nothing runs in it
            if call.end > call.start:
                across = frozenset(b for b in self._exact.begun(call.start) if self._exact.last[b] >= call.end)
            self._add(HELD, path, call, self._exact.bytes(across) - self._exact.bytes(held))
            self._frame(call, frame, across, held)

    def _entry(self, frame: Call, around: Call | None, held_around: frozenset[int]) -> set[int]:
        """Return what may be alive when a frame begins; at least all that is, but what is held over the next frame."""
        if around is None:
            return set(frame.given)
        begun = self._most.begun(frame.start)
        own = {b for b in begun if self._most.born[b] >= around.start}.union(b for b in around.given if b in begun)
        return own.union(frame.given, (b for b in self._exact.begun(frame.start) if b not in held_around))

    def _add(self, kind: str, path: str, call: Call, value: int) -> None:
        key = (kind, path, call.labels)
        site, labels = self._notes.sites.setdefault(key, (Site(kind, path), call.labels))
        self._found.values[site] = value
        self._found.labels[site] = labels
        if call.hint is not None:
            self._found.hints[site] = call.hint


def _with_rests(frame: Call) -> Sequence[Call]:
    """Return the calls in a frame, and what it computes before, between and behind them."""
    found: list[Call] = []
    start, after = frame.start, "before"
    for call in (*frame.calls, None):
        end = frame.end if call is None else call.start
        if end > start:
            path, place = (f"{frame.path} {after}", f"{frame.place} {after}")
            found.append(Call(path, place, frame.mark, frame.labels, None, start, end, whole=True))
        if call is not None:
            found.append(call)
            start, after = call.end, f"after {call.place}{call.mark}"
    return found
