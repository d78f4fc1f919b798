"""Running networks of a model space, and recording which modules they call with which inputs.

A network is frozen as NNI freezes it, and run once on example inputs with forward hooks. No formulas for shapes are
needed. Pooling and other functions in `forward`, several inputs, and modules of any kind are supported in the same way
as convolutions.

A unit is a module in which no choice of layers, inputs or depth is left. The outermost such modules are the units, and
each of their calls is recorded. Units that depend on many choices of values are split into the modules inside.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import SpaceError
from ..latency.calls import Call
from ..latency.flop_counter import multiply_adds_counted, total_multiply_adds
from ..supernet.candidates import labels_of, path_candidates, searched
from ..supernet.constraints import Constraints
from ..supernet.remade import refuse_lost_changes
from ..supernet.unsupported import refuse_second_names
from .derived_quantities import quantities_of
from .example_inputs import ExampleInputs
from .liveness import LivenessRecorder
from .memory_sites import MemoryNotes, MemorySites
from .module_identity import described, shapes_of
from .shallow_freeze import shallow_freeze
from .sites import Site, Trace, Unit
from .space_paths import Origin, has_structure, is_container, is_selection, labels_inside, origin_of

# Combinations of its own choices up to which a module is measured as a whole.
MOST_VARIANTS = 32


class Tracer:
    """Runs networks of a model space.

    Args:
        space: Any NNI model space.
        inputs: Example inputs.
        memory: Whether to record the memory of activations.

    Attributes:
        candidates: Candidates of each label, as an NNI sample names them.
        constraints: Constraints of the space.
        derived: Quantities that follow from several choices, on which sites may depend.
        units: Different units that were found.
        notes: Which module reads the results of which, in all networks that were run.

    Raises:
        SpaceError: A choice has no list of candidates, or a module with choices has two names in one module or would
            lose a hook, a parametrization or a tied parameter.
    """

    def __init__(self, space: ModelSpace, inputs: ExampleInputs, memory: bool = False) -> None:
        refuse_second_names(space)
        refuse_lost_changes(space)
        mutables = labels_of(space)
        self.space, self.inputs, self.memory = space, inputs, memory
        self.candidates = {str(k): tuple(path_candidates(mutables[k])) for k in sorted(searched(mutables))}
        self.constraints = Constraints.in_space(mutables)
        self.derived = quantities_of(space, self.candidates)
        self.units: list[Unit] = []
        self.notes = MemoryNotes()
        self._numbers: dict[Hashable, int] = {}
        self._whole: dict[int, bool] = {}

    def freeze(self, sample: Mapping[str, Any]) -> nn.Module:
        """Return the network of a sample, in evaluation mode.

        Raises:
            SpaceError: NNI cannot build it.
        """
        try:
            self.space.validate(dict(sample))
            with _quiet():
                frozen = shallow_freeze(self.space, sample)
        except Exception as reason:
            told = " ".join(str(reason).split())[:200]
            raise SpaceError(
                f"NNI cannot build the network {_told(sample)} of {type(self.space).__name__}: {told}"
            ) from reason
        return frozen.eval()

    def run(self, sample: Mapping[str, Any]) -> Trace:
        """Run one network, and record what it has.

        Raises:
            SpaceError: NNI cannot build the network, or it fails on the example inputs.
        """
        with training_kept(self.space), _quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
            network = self.freeze(sample)
            trace = self._run(network, sample, self.inputs)
            if self.memory and self.inputs.batch > 1:  # run again for one input, whose calls are no units
                known, numbers = len(self.units), dict(self._numbers)
                try:
                    trace.memory = self._run(network, sample, self.inputs.single()).memory
                except SpaceError as reason:
                    trace.memory, self.notes.unknown = None, str(reason)
                del self.units[known:]
                self._numbers = numbers
        return trace

    def _run(self, network: nn.Module, sample: Mapping[str, Any], inputs: ExampleInputs) -> Trace:
        args, kwargs = inputs.tensors()
        recorder = LivenessRecorder(network, (args, kwargs)) if self.memory else None
        run = _Run(self, network, sample, MemorySites(recorder) if recorder else None)
        try:
            with recorder or nullcontext(), multiply_adds_counted() as counter:
                run.counter = counter
                results = network(*args, **kwargs)
        except Exception as reason:
            raise SpaceError(
                f"the network {_told(sample)} of {type(self.space).__name__} fails with inputs of shape "
                f"{inputs}: {str(reason)[:200]}"
            ) from reason
        finally:
            run.remove_hooks()
        run.count_parameters()
        if run.memory:
            run.trace.memory = run.memory.trace(results, self.notes)
        return run.trace

    def is_unit(self, module: nn.Module, origin: Origin) -> bool:
        """Whether a module of a frozen network is a unit if it is called outside of other units."""
        if is_container(module) or not origin.path:
            return False
        if is_selection(module):
            return True
        if origin.module is None:
            return self._is_whole(module)
        key = id(origin.module)  # a module of the space, which lives as long as this object
        if key not in self._whole:
            self._whole[key] = self._is_whole(origin.module)
        return self._whole[key]

    def _is_whole(self, module: nn.Module) -> bool:
        if has_structure(module):
            return False
        variants = math.prod(len(self.candidates.get(label, "x")) for label in labels_inside(module))
        return variants <= MOST_VARIANTS or not any(True for _ in module.children())

    def number_of(self, call: Call, multiply_adds: float, place: str) -> int:
        """Return the number of a unit; a new one if no equal unit is known."""
        identity, complete = described(call.module)
        key = (identity, shapes_of((call.args, dict(call.kwargs))), "" if complete else place)
        if key not in self._numbers:
            self._numbers[key] = len(self.units)
            self.units.append(Unit(call, multiply_adds))
        return self._numbers[key]


class _Run:
    """Hooks that record one run of a network."""

    counter: FlopCounterMode

    def __init__(
        self, tracer: Tracer, network: nn.Module, sample: Mapping[str, Any], memory: MemorySites | None
    ) -> None:
        self.trace, self.memory = Trace(), memory
        self._tracer, self._network = tracer, network
        self._origins = {name: origin_of(tracer.space, name, sample) for name, _ in network.named_modules()}
        self._inside = 0  # depth of calls within a unit
        self._open: list[tuple[float, float]] = []  # multiply-adds before a module's call, and of calls inside it
        self._calls: list[tuple[Call, float]] = []
        self._hooks: list[Any] = []
        self._units: dict[str, None] = {}  # outermost units
        for name, module in network.named_modules():
            origin = self._origins[name]
            if is_container(module):
                continue
            if tracer.is_unit(module, origin):
                if not any(name.startswith(f"{unit}.") for unit in self._units):
                    self._units[name] = None
                self._hooks.append(module.register_forward_pre_hook(self._enter_unit(origin), with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._leave_unit(origin), always_call=False))
            else:
                self._hooks.append(module.register_forward_pre_hook(self._enter(origin), with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._leave(origin)))

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def count_parameters(self) -> None:
        """Record the parameters of each unit, and of each other module itself. Shared parameters count once."""
        seen: set[int] = set()
        counts: dict[str, int] = {}
        for name, module in self._network.named_modules():
            own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
            seen.update(map(id, own))
            if count := sum(p.numel() for p in own):
                owner = next((unit for unit in self._units if name == unit or name.startswith(f"{unit}.")), name)
                counts[owner] = counts.get(owner, 0) + count
        for owner, count in counts.items():
            origin = self._origins[owner]
            self._add(Site("own", origin.path), count, origin, origin.module, owner in self._units)

    def _add(self, site: Site, value: Hashable, origin: Origin, module: nn.Module | None, whole: bool) -> None:
        number, first = 1, site
        while site in self.trace.values:
            number += 1
            site = Site(first.kind, f"{first.path} #{number}")
        labels = set(origin.labels)
        if module is not None:
            labels |= labels_inside(module) if whole else _own_labels(module)
        self.trace.values[site] = value
        self.trace.labels[site] = frozenset(labels)
        if origin.hint is not None:
            self.trace.hints[site] = origin.hint

    def _total(self) -> float:
        return total_multiply_adds(self.counter)

    def _enter_unit(self, origin: Origin) -> Any:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._inside += 1
            if self._inside == 1:
                self._calls.append((Call.recorded(module, args, kwargs, origin.path), self._total()))
                if self.memory:
                    self.memory.enter(origin, (args, kwargs), whole=True)

        return enter

    def _leave_unit(self, origin: Origin) -> Any:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._inside -= 1
            if self._inside == 0:
                if self.memory:
                    self.memory.leave(output)
                call, before = self._calls.pop()
                spent = self._total() - before
                self._inner(spent)
                number = self._tracer.number_of(call, spent, origin.path)
                self._add(Site("call", origin.path), number, origin, origin.module, True)

        return leave

    def _inner(self, spent: float) -> None:
        if self._open:
            before, inner = self._open[-1]
            self._open[-1] = (before, inner + spent)

    def _enter(self, origin: Origin) -> Any:
        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not self._inside:
                self._open.append((self._total(), 0.0))
                if self.memory:
                    self.memory.enter(origin, (args, kwargs), whole=False)

        return enter

    def _leave(self, origin: Origin) -> Any:
        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if self._inside:
                return
            if self.memory:
                self.memory.leave(output)
            before, inner = self._open.pop()
            spent = self._total() - before
            self._inner(spent)
            if spent - inner > 0:
                self._add(Site("rest", origin.path), spent - inner, origin, origin.module, False)

        return leave


def _own_labels(module: nn.Module) -> set[str]:
    return {str(label) for mutable in getattr(module, "mutables", ()) for label in mutable.simplify()}


@contextmanager
def training_kept(space: nn.Module) -> Iterator[None]:
    """Context manager that restores the mode of all modules, which frozen networks share with the space."""
    before = [(module, module.training) for module in space.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Context manager that silences NNI, which reports some of its spaces' networks in several lines each."""
    logger = logging.getLogger("nni")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _told(sample: Mapping[str, Any]) -> str:
    parts = [f"{label}={value}" for label, value in sample.items()]
    return "{" + ", ".join(parts[:4]) + (", …" if len(parts) > 4 else "") + "}"
