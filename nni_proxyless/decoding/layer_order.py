"""The order in which the layers of a decoding problem are chosen, and the quantities that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..latency.derived import Derived


def derived_of(costs: Iterable[tuple[str, SpaceCosts]]) -> tuple[Derived, ...]:
    """Collect the derived quantities of all costs, which are given with the names of their constraints.

    Raises:
        InputError: Two tables follow the same quantity from the choices in different ways.
    """
    found: dict[str, Derived] = {}
    for name, of in costs:
        for quantity in of.derived:
            if found.setdefault(quantity.name, quantity) != quantity:
                raise InputError(
                    f"the table of '{name}' is measured for another space: its '{quantity.name}' follows from the "
                    "choices in another way"
                )
    return tuple(found.values())


def layer_order(labels: list[str], costs: Sequence[SpaceCosts], derived: Sequence[Derived]) -> list[str]:
    """Order labels so that the layers of a joint cost are close to each other; unchanged without joint costs.

    Args:
        labels: Labels of the layers, and names of derived quantities.
        costs: Costs that add up.
        derived: Derived quantities. Each comes after its layers, which are in the order of its diagram if possible.
    """
    joint = {frozenset(j.labels) for of in costs for j in of.joint}
    waiting = sorted((sorted(of, key=labels.index) for of in joint), key=lambda of: [labels.index(k) for k in of])
    ordered: dict[str, None] = {}
    for quantity in derived:
        ordered.update(dict.fromkeys([*quantity.labels, quantity.name]))
    while waiting:
        following = min(waiting, key=lambda of: sum(label not in ordered for label in of))
        waiting.remove(following)
        ordered.update(dict.fromkeys(following))
    return [*ordered, *(label for label in labels if label not in ordered)]
