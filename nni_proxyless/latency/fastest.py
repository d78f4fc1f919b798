"""The fastest network that a table of operators allows, whatever the space."""

from __future__ import annotations

import heapq

from ..network.operators import Operator
from .table import LatencyTable

_IMAGE_CHANNELS = 3


def least_ms(table: LatencyTable) -> float | None:
    """Return a lower bound of the latency of all networks of any space, according to a table of operators.

    A network is a chain of operators from an image to a classifier, so it takes at least as long as the shortest such
    path through the operators of the table (Dijkstra 1959). In a space that has all operators of the table and may skip
    its layers, the fastest network takes just as long.

    Args:
        table: Latency table.

    Returns:
        Latency in milliseconds; `None` if the table has no such path.

    Examples:
        >>> from nni_proxyless.latency import make_backend, measure_table
        >>> from nni_proxyless.network.space_spec import SpaceSpec
        >>> spec = SpaceSpec.from_yaml("mobilenetv2_cifar")
        >>> table = measure_table(spec, make_backend("flops"))
        >>> least_ms(table) == table.costs(spec).smallest
        True
    """
    operators = {op: cost.cost for op, cost in table.operators.items() if isinstance(op, Operator)}
    after: dict[tuple[int, int, int], list[tuple[Operator, float]]] = {}
    for operator, cost in operators.items():
        after.setdefault(operator.input_shape, []).append((operator, max(cost, 0.0)))
    made = {op.output_shape for op in operators}
    images = {
        op.input_shape
        for op in operators
        if op.kind == "conv" and (op.input_shape[0] <= _IMAGE_CHANNELS or op.input_shape not in made)
    }
    waiting = [(0.0, shape, False) for shape in sorted(images)]
    known: set[tuple[int, int, int]] = set()
    while waiting:
        least, shape, complete = heapq.heappop(waiting)
        if complete:
            return table.calibration.scale * least + table.calibration.offset_ms
        if shape in known:
            continue
        known.add(shape)
        for operator, cost in after.get(shape, ()):
            heapq.heappush(waiting, (least + cost, operator.output_shape, operator.kind == "classifier"))
    return None
