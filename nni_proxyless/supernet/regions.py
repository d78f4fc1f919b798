"""Regions: the parts of a supernet in which a value is chosen, and at whose ends the outputs of all values are alike.

The width of a layer changes the shape of what it passes on, so the paths of its gate cannot be compared at the layer
itself. They can be compared after the last module that depends on the width. A region begins before the first module
that depends on a label and ends after the last one. It is the layer of the paper's eq. 3: the gate's paths are the
region's outputs for each value. The region runs once with an autograd graph, for the active value, and once without
for each other sampled value. Inside such a pass, all other gates run their active path only, so the cost of an
architecture step is the sum over all labels, not the product.

A region is the smallest module that contains all modules of its label, or the part of an `nn.Sequential` that does. If
the outputs still differ when a search runs all paths for the first time, the region is widened to the next larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from ..errors import SpaceError
from .gate import Gate, UnlikePathsError, probing
from .gated import GatedModule, input_unchanged
from .gated_cells import GatedCell
from .gated_values import gates_read_by


@dataclass
class _Part:
    """Children of an `nn.Sequential` that one gate's region consists of, from `start` up to and including `end`."""

    gate: Gate
    start: int
    end: int


@dataclass
class _Places:
    """What a module is the region of: gates of the whole module, or of some of the children of an `nn.Sequential`."""

    whole: list[Gate] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)


class _Region(nn.Module):
    """Added to the class of a module that is a region."""

    _places: _Places
    _class_before: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run: Callable[..., Any] = super().forward
        if self._places.parts:
            run = self._run_parts
        for gate in self._places.whole:
            run = partial(self._gated, gate, run)
        return run(*args, **kwargs)

    def _gated(self, gate: Gate, run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def run_path(index: int) -> Any:
            with input_unchanged((args, kwargs), gate, f"the network with '{gate.label}' = {gate.candidates[index]}"):
                return gate.run_as(index, partial(run, *args, **kwargs))

        return gate(run_path, self)

    def _run_parts(self, x: Any) -> Any:
        """Run the children of an `nn.Sequential`, and compare the paths of each part at its end."""
        inputs: dict[int, Any] = {}
        children: list[Any] = list(self._modules.values())
        parts = [part for part in self._places.parts if part.gate.running is None]
        for number, child in enumerate(children):
            inside = [part for part in parts if part.start <= number <= part.end]
            inputs |= {id(part): x for part in inside if part.start == number}
            with_graph: Callable[[], Any] = partial(child, x)
            for part in inside:
                with_graph = partial(part.gate.run_as, self._first_path(part.gate), with_graph)
            x = with_graph()
            for part in inside:
                if part.end == number:
                    x = self._ended(part, inputs[id(part)], x, children)
        return x

    @staticmethod
    def _first_path(gate: Gate) -> int:
        return gate.kept[0] if gate.probing else gate.sample.active

    def _ended(self, part: _Part, start: Any, active: Any, children: list[Any]) -> Any:
        def run_path(index: int) -> Any:
            if index == self._first_path(part.gate):
                return active

            def again() -> Any:
                z = start
                for child in children[part.start : part.end + 1]:
                    z = child(z)
                return z

            return part.gate.run_as(index, again)

        return part.gate(run_path, self)


class _SpaceWithRegions(nn.Module):
    """Added to the class of a model space, so that frozen networks contain no regions."""

    _class_without_regions: type[nn.Module]

    def freeze(self, sample: dict[str, Any]) -> Any:
        frozen = super().freeze(sample)  # type: ignore[misc]
        if type(frozen) is type(self) and "_class_without_regions" not in frozen.__dict__:  # made anew, by its class
            frozen.__class__ = self.__dict__.get("_class_before", self._class_without_regions)
        if frozen is not self:
            for module in frozen.modules():
                if isinstance(module, _Region):
                    del module._places
                    module.__class__ = module.__dict__.pop("_class_before")
                if isinstance(module, _SpaceWithRegions):
                    module.__class__ = module.__dict__.pop("_class_without_regions")
        return frozen


def place_regions(supernet: nn.Module) -> None:
    """Make regions for all gates whose values are read by modules that run no paths themselves.

    Args:
        supernet: Mutated model space; changed in place.

    Raises:
        SpaceError: The only module that contains all modules of a label cannot be run.
    """
    readers: dict[str, list[str]] = {}
    found: dict[str, Gate] = {}
    for name, module in supernet.named_modules():
        for gate in gates_read_by(module):
            found[gate.label] = gate
        for gate in module.own_gates() if isinstance(module, GatedModule) else gates_read_by(module):
            readers.setdefault(gate.label, []).append(name)
    if not found:
        return
    modules = dict(supernet.named_modules())
    for label in sorted(found):
        if found[label].num_candidates == 1:
            continue
        common = _common([name.split(".") for name in readers[label]])
        _place(supernet, modules, found[label], common, readers[label])
    cls = type(supernet)
    supernet.__dict__["_class_without_regions"] = cls
    supernet.__class__ = type(cls.__name__, (_SpaceWithRegions, cls), _same_name(cls))


def _place(
    supernet: nn.Module, modules: Mapping[str, nn.Module], gate: Gate, common: list[str], readers: list[str]
) -> None:
    while not _is_called(modules[".".join(common)]):
        if not common:
            raise SpaceError(f"{type(supernet).__name__} has no forward method, so '{gate.label}' cannot be searched")
        common = common[:-1]
    module = modules[".".join(common)]
    prefix = len(".".join(common)) + 1 if common else 0
    places = _places_of(module)
    if _runs_children_in_order(_before(module)) and ".".join(common) not in readers:
        order = list(module._modules)
        numbers = [order.index(name[prefix:].split(".")[0]) for name in readers]
        places.parts.append(_Part(gate, min(numbers), max(numbers)))
    else:
        places.whole.append(gate)


def _before(module: nn.Module) -> type[nn.Module]:
    return module._class_before if isinstance(module, _Region) else type(module)


def _runs_children_in_order(kind: type[nn.Module]) -> bool:
    # A faster Sequential (training/in_order.py) says so itself.
    return kind.forward is nn.Sequential.forward or getattr(kind.forward, "runs_children_in_order", False)


def _is_called(module: nn.Module) -> bool:
    return _before(module).forward is not nn.Module.forward


def _places_of(module: nn.Module) -> _Places:
    """Return the places of a module, which becomes a region."""
    if not isinstance(module, _Region):
        cls = type(module)
        module.__dict__["_class_before"] = cls
        module.__dict__["_places"] = _Places()
        module.__class__ = type(cls.__name__, (_Region, cls), _same_name(cls))
    places: _Places = module.__dict__["_places"]
    return places


def _same_name(cls: type) -> dict[str, Any]:
    return {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}


def _common(paths: list[list[str]]) -> list[str]:
    """Return the longest common beginning of several paths."""
    common = []
    for steps in zip(*paths, strict=False):
        if len(set(steps)) > 1:
            break
        common.append(steps[0])
    return common


def run_all_paths(supernet: nn.Module, gates_of: Iterable[Gate], run: Callable[[], Any]) -> None:
    """Run all paths of all gates once and compare their outputs. Regions whose outputs are unlike are widened.

    Args:
        supernet: Mutated model space.
        gates_of: Gates of the supernet.
        run: Function that runs the supernet.

    Raises:
        SpaceError: The outputs of two paths cannot be exchanged, and there is no wider region.
    """
    listed = list(gates_of)
    while True:
        try:
            with probing(listed):
                run()
            return
        except UnlikePathsError as reason:
            if not widen(supernet, reason.gate):
                raise
        except RuntimeError as reason:
            if cell := next((m for m in supernet.modules() if isinstance(m, GatedCell) and m.width_varies), None):
                raise SpaceError(
                    f"Cell '{cell.label}' has merge_op='loose_end', so the width of its output depends on its inputs, "
                    f"and the network fails on another width; use merge_op='all': {str(reason)[:200]}"
                ) from reason
            raise


def widen(supernet: nn.Module, gate: Gate) -> bool:
    """Widen the region of a gate: by one child of an `nn.Sequential`, or to the module that contains the region.

    Args:
        supernet: Mutated model space; changed in place.
        gate: Gate of the region.

    Returns:
        Whether there was a wider region.
    """
    modules = dict(supernet.named_modules())
    for name, module in modules.items():
        if not isinstance(module, _Region):
            continue
        for part in module._places.parts:
            if part.gate is gate:
                if part.end < len(module._modules) - 1:
                    part.end += 1
                    return True
                module._places.parts.remove(part)
                module._places.whole.append(gate)
                if part.start == 0 and not name:
                    return False
                return True if part.start > 0 else _move_up(supernet, modules, module, gate, name)
        if gate in module._places.whole:
            return _move_up(supernet, modules, module, gate, name)
    return False


def _move_up(supernet: nn.Module, modules: Mapping[str, nn.Module], module: _Region, gate: Gate, name: str) -> bool:
    if not name:
        return False
    module._places.whole.remove(gate)
    _place(supernet, modules, gate, name.split(".")[:-1], [name])
    return True
