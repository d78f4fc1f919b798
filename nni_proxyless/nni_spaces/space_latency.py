"""Measurement of latency tables for any NNI model space, from NNI's hub or the user's own.

Random networks of the space are run, to find which modules they call with which inputs, and on which choices that
depends (`trace.py`, `dependence.py`). Each different call is then measured alone, and a few whole networks calibrate
the sum. The table also has the parameters and multiply-adds of all networks and, on demand, their peak memory.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from ..errors import InputError, LatencyTableError, SpaceError
from ..latency.backends.base import Backend, Workload
from ..latency.calibration import fit_calibration
from ..latency.calls import Call
from ..latency.composition import COUNTS, Composition
from ..latency.costs import SpaceCosts
from ..latency.entries import ModuleCall
from ..latency.judgement import rank_correlation, warnings_of, with_verdict
from ..latency.measure import CALIBRATION_NETWORKS, measure_modules, now
from ..latency.memory import Memory
from ..latency.protocol import Protocol
from ..latency.quality import Quality
from ..latency.sampling import Progress, Samples, Timeline, sample_interleaved
from ..latency.table import LatencyTable, OperatorCost
from ..latency.validate import comparable_level
from ..supernet.constraints import MOST_DRAWS
from .dependence import SpaceFunctions
from .example_inputs import ExampleInputs
from .space_memory import memory_of
from .space_networks import Codes
from .space_parts import composition_of, numbered_anew
from .trace import Tracer, training_kept

_log = logging.getLogger(__name__)


def space_name(model_space: ModelSpace) -> str:
    """Name of a model space in tables: the full name of its class."""
    return f"{type(model_space).__module__}.{type(model_space).__qualname__}"


def measure_model_space(
    model_space: ModelSpace,
    inputs: Any,
    backend: Backend,
    *,
    calibration_networks: int = CALIBRATION_NETWORKS,
    seed: int = 0,
    memory: bool = False,
    protocol: Protocol | None = None,
    network_protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the modules of any NNI model space, then calibrate the table on whole networks.

    Each module is measured with the inputs that it gets inside networks of the space. Operations between modules, such
    as an addition in `forward`, are not measured alone; the calibration accounts for them.

    The table also contains the parameters and multiply-adds of all networks, and with `memory=True` their peak
    activation memory: `table.composition.quantities()`. Peak memory is that of the exported graph (`liveness.py`), in
    bytes for one input. It is exact unless a warning says that it is an upper bound, or that it is not known.

    Args:
        model_space: NNI model space, from NNI's hub or the user's own, before a search has mutated it.
        inputs: Shape of one input without the batch dimension, such as `(3, 32, 32)`, or a tensor with it. For a
            `forward` with several arguments, a tuple of these, or a dictionary by the names of the arguments.
        backend: Backend that runs the modules and networks. `flops` and `params` count instead.
        calibration_networks: Number of whole networks for the calibration, among them the fastest and the slowest one
            of the uncalibrated table; 0 for no calibration. Backends that count exactly are never calibrated.
        seed: Seed of the random networks.
        memory: Whether the table contains the peak memory of all networks. More networks are run for it: a few in most
            spaces, and hundreds in spaces of cells.
        protocol: Measuring protocol of the modules. Defaults to the backend's protocol for operators.
        network_protocol: Measuring protocol of the networks. Defaults to the backend's protocol for calibration
            networks.
        progress: Callback that receives a text, the number of networks or workloads finished, and the number that are
            known to be needed.

    Returns:
        Table for `ProxylessNAS(latency=table, budget_ms=…, budgets={'peak_memory': …})` and
        `LatencyProfiler(model_space, table)`.

    Examples:
        Multiply-adds of the modules of a small space, and of one of its networks:

        >>> from nni.nas.nn.pytorch import LayerChoice, ModelSpace
        >>> from torch import nn
        >>> from nni_proxyless import LatencyProfiler
        >>> from nni_proxyless.latency import make_backend
        >>> class Space(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         small, large = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        ...         self.conv = LayerChoice({"small": small, "large": large}, label="conv")
        ...
        ...     def forward(self, x):
        ...         return self.conv(x)
        >>> space = Space()
        >>> table = measure_model_space(space, (3, 16, 16), make_backend("flops"))
        >>> LatencyProfiler(space, table).profile({"conv": "large"})
        55296.0

    Raises:
        InputError: An argument is invalid, or the backend cannot give a module its inputs.
        SpaceError: A network cannot be built, run or exported, or what a module computes depends on too many choices
            at once.
        RunError: The backend failed.
    """
    if calibration_networks < 0:
        raise InputError(f"calibration networks must be a number from 0, got {calibration_networks}")
    example = ExampleInputs.of(inputs, model_space, backend.batch)
    functions = SpaceFunctions(Tracer(model_space, example, memory), seed=seed, progress=progress)
    composition = composition_of(functions, _memory(functions, progress) if memory else None)
    if backend.unit != "ms":
        return _counted(functions, composition, backend)
    calls = [unit.call for unit in functions.tracer.units]
    if not calls:
        raise SpaceError(f"the networks of {type(model_space).__name__} call no modules that could be measured")
    with training_kept(model_space), backend.session():
        entries = _entries(calls, example.batch)
        loaders = {entry: _loader(backend, call) for entry, call in zip(entries, calls, strict=True)}
        reference = _reference(functions.tracer, backend)() if backend.clocked else None
        timeline = Timeline()
        table = measure_modules(
            loaders, backend, space_name(model_space),
            protocol=protocol, reference=reference, timeline=timeline, kind="modules", progress=progress,
        )  # fmt: skip
        kept = [number for number, entry in enumerate(entries) if entry in table.operators]
        table = replace(table, input_shape=example.shape, composition=numbered_anew(composition, kept))
        costs = table.own_costs()
        if calibration_networks == 0 or backend.exact:
            return _judged(table)
        drawn = _calibration_networks(functions, costs, calibration_networks)
        taken = sample_interleaved(
            {f"network {number}": _network(functions, codes, backend) for number, codes in enumerate(drawn)},
            network_protocol or backend.calibration_protocol,
            stage="networks",
            reference=reference,
            clocked=backend.clocked,
            timeline=timeline,
            progress=progress,
        )
    sums = [costs.of(_names(functions.sample(codes))) for codes in drawn]
    medians = [samples.median for samples in taken.values()]
    found = fit_calibration(sums, medians)
    rank = rank_correlation([found.scale * total + found.offset_ms for total in sums], medians)
    quality = replace(table.quality or Quality(), rank_correlation=rank, smallest_ms=min(medians))
    reference_ms = next(iter(taken.values())).reference
    return _judged(with_verdict(replace(table, calibration=found, quality=quality, reference_ms=reference_ms)))


def measure_space_networks(
    model_space: ModelSpace,
    inputs: Any,
    samples: Sequence[Mapping[str, Any]],
    backend: Backend,
    *,
    table: LatencyTable | None = None,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> list[Samples]:
    """Measure whole networks of any NNI model space in one interleaved run, such as to check a table's predictions.

    A machine does not always run at the same speed. With `table`, the latencies are those that the networks would have
    had when the table was measured, so that the difference from its predictions is the error of the table alone. The
    speeds are compared by a reference network of the space, whose latency the table has.

    Args:
        model_space: NNI model space.
        inputs: Example inputs; see `measure_model_space`.
        samples: Networks as NNI samples.
        backend: Backend that runs the networks.
        table: Table of `measure_model_space` for this space, with this device, backend and settings. Without it, the
            latencies are those of the machine of today.
        protocol: Measuring protocol. Defaults to the backend's protocol for networks.
        progress: Progress callback; see `measure_model_space`.

    Returns:
        Samples of each network, in the same order.

    Raises:
        InputError: There are no samples, or the backend cannot give a network its inputs.
        LatencyTableError: The table was measured on another device, with another backend or other settings, or for
            another space, or it has no latency of the reference network.
        SpaceError: A network cannot be built or exported.
    """
    if not samples:
        raise InputError("samples must have at least one network")
    level = None if table is None else _level(table, model_space, backend)
    tracer = Tracer(model_space, ExampleInputs.of(inputs, model_space, backend.batch))
    with training_kept(model_space), backend.session():
        loaders = {str(number): _loader(backend, _whole(tracer, sample)) for number, sample in enumerate(samples)}
        first = _reference(tracer, backend) if level else loaders["0"]
        taken = sample_interleaved(
            loaders,
            protocol or backend.network_protocol,
            reference=first() if backend.clocked else None,
            clocked=backend.clocked,
            progress=progress,
        )
    return [each.at_level(level) for each in taken.values()]


def _level(table: LatencyTable, model_space: ModelSpace, backend: Backend) -> float | None:
    """Return the latency of the reference network when the table was measured; `None` if the speed does not matter."""
    if not backend.clocked:
        return None
    level = comparable_level(table, backend, space_name(model_space))
    if level is None:
        raise LatencyTableError(
            f"the table of {table.device.name} ({table.backend}, {table.space}) cannot be compared with networks of "
            f"{space_name(model_space)} that {backend.name} measures here: device, backend, version, settings and "
            "space must be the table's, and the table must have reference_ms; measure it again, or leave out table="
        )
    return level


def _reference(tracer: Tracer, backend: Backend) -> Callable[[], Workload]:
    """Return a function that prepares the reference network, always the same one of a space.

    It has the first candidate of each choice, or is random with a fixed seed if the constraints exclude that network.

    Raises:
        SpaceError: None of many random networks satisfies the constraints.
    """
    generator = random.Random("reference network")
    sample = {label: of[0] for label, of in tracer.candidates.items()}
    for _ in range(MOST_DRAWS):
        if not tracer.constraints or tracer.constraints.allow(sample):
            return _loader(backend, _whole(tracer, sample))
        sample = {label: generator.choice(of) for label, of in tracer.candidates.items()}
    raise SpaceError(f"none of {MOST_DRAWS} random networks satisfies the constraints of the space")


def _memory(functions: SpaceFunctions, progress: Progress | None) -> Memory | None:
    """Return the peak memory of all networks; `None`, with a warning, if it cannot be known."""
    try:
        found = memory_of(functions, progress)
    except SpaceError as reason:
        _log.warning("the table has no peak memory: %s", reason)
        return None
    finally:
        functions.traces.clear()  # they are large, and not needed any more
    if found.warning is not None:
        _log.warning(found.warning)
    return found


def _whole(tracer: Tracer, sample: Mapping[str, Any]) -> Call:
    inputs = tracer.inputs
    return Call(tracer.freeze(sample), inputs.args, inputs.kwargs, f"network of {type(tracer.space).__name__}")


def _network(functions: SpaceFunctions, codes: Codes, backend: Backend) -> Callable[[], Workload]:
    return _loader(backend, _whole(functions.tracer, functions.sample(codes)))


def _loader(backend: Backend, call: Call) -> Callable[[], Workload]:
    try:
        return backend.call_loader(call)
    except InputError:
        raise
    except Exception as reason:  # exporters raise errors of many kinds
        lines = str(reason).strip().splitlines() or [type(reason).__name__]
        raise SpaceError(
            f"backend {backend.name} cannot take module '{call.name}' ({type(call.module).__name__}): "
            f"{lines[0][:200]}; measure with make_backend('torch')"
        ) from reason


def _entries(calls: Sequence[Call], batch: int) -> list[ModuleCall]:
    """Name the calls. Modules that print alike, but compute differently, have a number."""
    found: list[ModuleCall] = []
    known: dict[ModuleCall, int] = {}
    for call in calls:
        entry = ModuleCall(_printed(call.module), call.shapes(batch))
        known[entry] = number = known.get(entry, 0) + 1
        found.append(entry if number == 1 else ModuleCall(f"{entry.module} #{number}", entry.inputs))
    return found


def _printed(module: nn.Module) -> str:
    try:
        return repr(module)
    except AttributeError:  # NNI cannot print some modules of its hub once they are frozen
        shapes = ", ".join(f"{name}={list(value.shape)}" for name, value in module.state_dict().items())
        return f"{type(module).__qualname__}({shapes})"


def _calibration_networks(functions: SpaceFunctions, costs: SpaceCosts, count: int) -> list[Codes]:
    """Draw different networks, after the fastest and the slowest one if these keep the constraints of the space."""
    candidates, constraints = functions.tracer.candidates, functions.tracer.constraints
    found: dict[Codes, None] = {}
    for choices in (costs.cheapest, costs.dearest):
        codes = functions.extended([[str(each) for each in of].index(choices[k]) for k, of in candidates.items()])
        if not constraints or constraints.allow(functions.sample(codes)):
            found[codes] = None
    for _ in range(20 * count):
        if len(found) >= count:
            break
        found[functions.draw()] = None
    return list(found)[:count]


def _names(sample: Mapping[str, Any]) -> dict[str, str]:
    return {label: str(candidate) for label, candidate in sample.items()}


def _counted(functions: SpaceFunctions, composition: Composition, backend: Backend) -> LatencyTable:
    """Return a table of counts, which are known from the runs."""
    name, batch = COUNTS[backend.unit], functions.tracer.inputs.batch
    units = functions.tracer.units
    counts = [
        sum(p.numel() for p in unit.call.module.parameters()) if name == "parameters" else unit.multiply_adds / batch
        for unit in units
    ]
    entries = _entries([unit.call for unit in units], batch)
    kept = [number for number, count in enumerate(counts) if count > 0]
    return LatencyTable(
        device=backend.device,
        backend=backend.name,
        backend_version=backend.version,
        dtype=backend.dtype,
        batch=backend.batch,
        threads=backend.threads,
        date=now(),
        operators={entries[number]: OperatorCost(float(counts[number])) for number in kept},
        space=space_name(functions.tracer.space),
        unit=backend.unit,
        input_shape=functions.tracer.inputs.shape,
        composition=numbered_anew(composition, kept),
    )


def _judged(table: LatencyTable) -> LatencyTable:
    for text in warnings_of(table):
        _log.warning(text)
    return table
