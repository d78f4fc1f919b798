"""The activations of one run of a network: when each of them is made, and when it is read for the last time.

A dispatch mode sees every operation of PyTorch below autograd. An activation is what depends on the inputs of the
network; what follows from weights alone is left out, because exported graphs have it as constants.

The memory is that of the exported graph, executed in the order in which the operations ran, as in
`network/footprint.py`:

* Results that no result of the network depends on are left out.
* Views, such as reshapes, transpositions and slices, take no memory. They keep the whole tensor alive.
* An elementwise operation of one activation, such as an activation function or a batch norm, writes over it if nothing
  else reads it later. It never writes over an input of the network, which belongs to the caller.
* All other operations need their inputs and outputs at the same time. `x += y` counts as `x + y`, which is what an
  exported graph has for it. Attention is counted in its plain form, with a matrix of scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Elementwise functions of one activation that PyTorch does not call pointwise.
_ELEMENTWISE = frozenset(
    {"hardswish", "hardsigmoid", "mish", "silu", "gelu", "celu", "elu", "selu", "leaky_relu", "threshold", "prelu",
     "_prelu_kernel", "softplus", "log_sigmoid_forward", "hardtanh", "relu6", "native_dropout"}
)  # fmt: skip
_NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "_batch_norm_no_update"})
_COPIES = frozenset({"clone", "_to_copy", "contiguous"})


@dataclass
class Event:
    """An operation.

    Attributes:
        reads: Numbers of the buffers that it reads.
        made: Numbers of the buffers that it fills.
        changes: Numbers of the buffers in which it writes without filling them.
        over: Buffer over which it may write its result.
    """

    reads: frozenset[int]
    made: tuple[int, ...]
    changes: frozenset[int] = frozenset()
    over: int | None = None


@dataclass
class Liveness:
    """Buffers and operations of one run, in order.

    Attributes:
        sizes: Bytes of each buffer.
        events: Operations.
        given: Number of buffers that are inputs of the network. They come first.
        born: Position of the operation that fills each buffer; -1 for the inputs.
        last: Position of the last operation that reads each buffer; the number of operations for results of the
            network, and -1 for buffers on which no result depends.
    """

    sizes: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    given: int = 0
    born: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)

    def finish(self, results: Iterable[int], kept: Iterable[int] = ()) -> Liveness:
        """Find out when each buffer is read for the last time, and return this object.

        Args:
            results: Buffers of the results of the network.
            kept: Buffers that are computed, and count at this moment, even if no result depends on them.
        """
        needed = set(kept)
        self.born = [-1] * len(self.sizes)
        self.last = [-1] * len(self.sizes)
        for buffer in results:
            self.last[buffer] = len(self.events)
        for number in range(len(self.events) - 1, -1, -1):
            event = self.events[number]
            for buffer in event.made:
                self.born[buffer] = number
                if buffer in needed:
                    self.last[buffer] = max(self.last[buffer], number)
            if any(self.last[buffer] >= 0 for buffer in (*event.made, *event.changes)):
                for buffer in event.reads:
                    self.last[buffer] = max(self.last[buffer], number)
            else:
                self.events[number] = Event(frozenset(), ())
        return self

    def used(self) -> list[int]:
        """Return the buffers that count."""
        return [buffer for buffer, last in enumerate(self.last) if last >= 0]

    def begun(self, start: int) -> list[int]:
        """Return the buffers that are alive when an operation begins."""
        return [buffer for buffer, last in enumerate(self.last) if self.born[buffer] < start <= last]

    def filled(self, start: int, end: int) -> set[int]:
        """Return the buffers that count, and that the operations from `start` to before `end` fill."""
        made = (buffer for event in self.events[start:end] for buffer in event.made)
        return {buffer for buffer in made if self.last[buffer] >= 0}

    def bytes(self, buffers: Iterable[int]) -> int:
        """Return the size of some buffers together."""
        return sum(self.sizes[buffer] for buffer in buffers)

    def taken_over(self, number: int) -> int | None:
        """Return the buffer over which an operation writes, or `None`."""
        over = self.events[number].over
        return over if over is not None and over >= self.given and self.last[over] == number else None

    def alive(self, buffers: Iterable[int], start: int, end: int, *, kept: bool = False) -> list[int]:
        """Return the bytes of some buffers that are in memory at each operation from `start` to before `end`.

        Args:
            buffers: Numbers of buffers.
            start: Position of the first operation.
            end: Position behind the last operation.
            kept: Whether buffers that are none of these are never written over.
        """
        change = [0] * (end - start + 1)
        chosen = set(buffers)
        for buffer in chosen:
            first, last = max(self.born[buffer], start), min(self.last[buffer], end - 1)
            if first <= last:
                change[first - start] += self.sizes[buffer]
                change[last + 1 - start] -= self.sizes[buffer]
        found, total = [], 0
        for number in range(start, end):
            total += change[number - start]
            over = self.taken_over(number)
            shared = over is not None and (over in chosen or not kept) and self.last[self.events[number].made[0]] >= 0
            found.append(total - (self.sizes[self.events[number].made[0]] if shared else 0))
        return found


class LivenessRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that records the activations of one run.

    Args:
        network: Network, whose parameters and buffers are no activations.
        inputs: Inputs of the network.

    Attributes:
        liveness: What was recorded so far.
        at: Function that is told the position of each new operation.
    """

    def __init__(self, network: nn.Module, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.liveness = Liveness()
        self._buffers: dict[int, int | None] = {}  # by storage; None for weights and other constants
        self._storages: list[StorageWeakRef] = []  # keeps addresses of dead storages from being used again
        for tensor in (*network.parameters(), *network.buffers()):
            self._note(tensor, None)
        for tensor in _tensors(inputs):
            if self._key(tensor) not in self._buffers:
                self._note(tensor, self._new(tensor))
        self.liveness.given = len(self.liveness.sizes)

    def buffers_of(self, value: Any) -> list[int]:
        """Return the buffers of all activations in nested tuples, lists and dictionaries."""
        found = (self._buffers.get(self._key(tensor)) for tensor in _tensors(value))
        return list(dict.fromkeys(buffer for buffer in found if buffer is not None))

    def finish(self, results: Any, kept: Iterable[int] = ()) -> Liveness:
        """Return what was recorded, after the last operation; see `Liveness.finish`."""
        made = Liveness(list(self.liveness.sizes), list(self.liveness.events), self.liveness.given)
        return made.finish(self.buffers_of(results), kept)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it."""
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        written = [_argument(number, spec, args, kwargs) for number, spec in _written(func)]
        output = func(*args, **kwargs)
        self._record(func, given, _tensors(written), _tensors(output))
        return output

    def _record(self, func: Any, given: list[Tensor], written: list[Tensor], outputs: list[Tensor]) -> None:
        reads = frozenset(self.buffers_of(given))
        if not reads:
            for tensor in outputs:
                self._buffers.setdefault(self._key(tensor), None)
                self._note(tensor, self._buffers[self._key(tensor)])
            return
        made: list[int] = []
        changes: set[int] = set()
        for tensor in written:
            own = self._buffers.get(self._key(tensor))
            if own is not None and (reads == {own} or not _whole(tensor)):
                changes.add(own)
            else:
                made.append(self._new(tensor))
                self._note(tensor, made[-1])
        fresh = [tensor for tensor in outputs if self._key(tensor) not in self._buffers]
        for tensor in fresh:
            if self._key(tensor) not in self._buffers:  # two outputs may share their storage
                made.append(self._new(tensor))
                self._note(tensor, made[-1])
        if made or changes:
            over = self._over(func, given, fresh) if fresh and not written else None
            self.liveness.events.append(Event(reads, tuple(made), frozenset(changes), over))

    def _over(self, func: Any, given: list[Tensor], outputs: list[Tensor]) -> int | None:
        """Return the buffer over which an operation may write its first output, or `None`."""
        name = func._schema.name.removeprefix("aten::")
        pointwise = torch.Tag.pointwise in func.tags and name not in _COPIES
        if not (pointwise or name in _ELEMENTWISE or name in _NORMS):
            return None
        sources = [tensor for tensor in given if self._buffers.get(self._key(tensor)) is not None]
        same = [t for t in sources if t.shape == outputs[0].shape and t.stride() == outputs[0].stride()]
        if len(same) < len(sources) or len(self.buffers_of(sources)) != 1 or not _whole(sources[0]):
            return None
        fits = outputs[0].untyped_storage().nbytes() <= sources[0].untyped_storage().nbytes()
        return self._buffers[self._key(sources[0])] if fits else None

    def _new(self, tensor: Tensor) -> int:
        self.liveness.sizes.append(tensor.untyped_storage().nbytes())
        return len(self.liveness.sizes) - 1

    def _note(self, tensor: Tensor, buffer: int | None) -> None:
        self._buffers[self._key(tensor)] = buffer
        self._storages.append(StorageWeakRef(tensor.untyped_storage()))  # type: ignore[no-untyped-call]

    def _key(self, tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _whole(tensor: Tensor) -> bool:
    """Whether a tensor has all bytes of its storage."""
    return tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()


def _written(func: Any) -> list[tuple[int, Any]]:
    return [
        (number, spec)
        for number, spec in enumerate(func._schema.arguments)
        if spec.alias_info is not None and spec.alias_info.is_write
    ]


def _argument(number: int, spec: Any, args: Any, kwargs: Any) -> Any:
    return args[number] if number < len(args) else kwargs.get(spec.name)
