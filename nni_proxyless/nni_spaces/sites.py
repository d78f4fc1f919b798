"""What a network of a model space has, as values of sites: `trace.py` finds them, and `dependence.py` compares them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from ..latency.calls import Call


@dataclass(frozen=True)
class Site:
    """Something that a network has, whose value depends on some choices.

    Attributes:
        kind: `call` of a unit, whose value is its number in `Tracer.units`; `rest`, the multiply-adds that a module
            with choices inside computes itself; `own`, the number of parameters of a unit or of such a module; or a
            kind of memory, in bytes (`memory_sites.py`).
        path: Place in the model space; the second call of a module has the suffix ` #2`.
    """

    kind: str
    path: str


@dataclass(frozen=True)
class Unit:
    """A module with the inputs of a call, of which equal ones exist once.

    Attributes:
        call: Module and inputs.
        multiply_adds: Multiply-adds of the call.
    """

    call: Call
    multiply_adds: float


@dataclass
class Trace:
    """What one network has.

    Attributes:
        values: Value of each site.
        labels: Labels on which each site is known to depend, because of its place and its arguments.
        hints: Label on which a site is likely to depend, too.
        memory: The same for the memory of its activations; `None` if it is not known.
    """

    values: dict[Site, Hashable] = field(default_factory=dict)
    labels: dict[Site, frozenset[str]] = field(default_factory=dict)
    hints: dict[Site, str] = field(default_factory=dict)
    memory: Trace | None = None
