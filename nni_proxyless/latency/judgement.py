"""The verdict on a latency table: how far it can be trusted.

A table is good, doubtful or bad. A doubtful table is used with a warning. A bad one is refused unless the user accepts
it. The limits are the constants below, and docs/latency.md lists them.
"""

from __future__ import annotations

import logging
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from ..errors import clipped
from .arrays import spearman
from .quality import Quality
from .table import LatencyTable
from .table_parts import BACKEND_NAMES

_log = logging.getLogger(__name__)
# Relative errors and relative spreads up to which a table is good, and from which it is bad.
GOOD_UP_TO, BAD_FROM = 0.05, 0.15
# Rank correlation of predicted and measured latencies below which a table is doubtful or bad.
RANK_DOUBTFUL, RANK_BAD = 0.8, 0.5
# Factors on the sum of operators, above 1 or below 1 / factor, from which a table is doubtful or bad.
SCALE_DOUBTFUL, SCALE_BAD = 2.5, 5.0
# Negative offsets, as shares of the smallest measured latency, from which a table is doubtful or bad.
OFFSET_DOUBTFUL, OFFSET_BAD = 0.3, 1.0
# Share of the machine's CPU time that was stolen, from which a measurement is doubtful.
STOLEN_DOUBTFUL = 0.05
# Cores that other programs may use beyond those that the measurement leaves free.
CORES_TOLERATED = 0.25
_LEAST_RANKED = 6  # networks from which their order says something


class Verdict(IntEnum):
    """How far a table can be trusted. A larger value is worse."""

    GOOD = 0
    DOUBTFUL = 1
    BAD = 2


@dataclass(frozen=True)
class Finding:
    """A reason to distrust a table.

    Attributes:
        verdict: Verdict on the table because of this finding.
        text: The finding in words.
        noise: Whether a longer measurement may help.
    """

    verdict: Verdict
    text: str
    noise: bool = False


def findings(table: LatencyTable) -> list[Finding]:
    """List the reasons to distrust a table, the worst first.

    Tables that were imported, and tables of counts, give no reason. A table that was fitted to whole networks is
    doubtful at most, because cross-validation has found its error.
    """
    if table.unit != "ms" or table.backend == "published":
        return []
    if table.backend == "fit":
        return [*_of_calibration(table), *_of_fastest(table)]
    found = [*_of_calibration(table), *_of_samples(table), *_of_machine(table)]
    return sorted(found, key=lambda finding: -finding.verdict)


def verdict(table: LatencyTable) -> Verdict:
    """Return the worst verdict of a table's `findings`."""
    return max((finding.verdict for finding in findings(table)), default=Verdict.GOOD)


def warnings_of(table: LatencyTable) -> tuple[str, ...]:
    """Return a warning about a table, in one line, or nothing if the table is good."""
    found = findings(table)
    if not found:
        return ()
    what = "doubtful" if verdict(table) is Verdict.DOUBTFUL else "bad"
    reasons = "; ".join(finding.text for finding in found)
    return (f"the latency table of {table.device.name} ({table.backend}) is {what}: {reasons}",)


def unknown_backend(table: LatencyTable) -> tuple[str, ...]:
    """Return a warning about a table of a backend that this version does not have, or nothing."""
    if table.backend in BACKEND_NAMES:
        return ()
    return (f"this version has no backend '{clipped(table.backend)}', so the table predicts, but cannot be compared",)


def with_verdict(table: LatencyTable) -> LatencyTable:
    """Store the verdict and its reasons in a table, so that people see them in its file."""
    stated = replace(
        table.quality or Quality(),
        verdict=verdict(table).name.lower(),
        warnings=tuple(finding.text for finding in findings(table)),
    )
    return replace(table, quality=stated)


def advice(table: LatencyTable) -> str:
    """Say what can be done about a bad table."""
    tried = ["wait until the machine is quiet", "measure in more processes (latency measure --processes)"]
    if table.threads is not None and table.threads > 1:
        tried.append("use fewer threads")
    if table.backend == "command":
        tried.insert(0, "check that the command prints the latency of {model}, and in which unit")
    return "; ".join([*tried, "or time whole networks and use `nni-proxyless latency fit`"])


def load_judged(path: str | os.PathLike[str]) -> LatencyTable:
    """Load a table, and log a warning if it is not good.

    Raises:
        LatencyTableError: The file cannot be read, has another schema, or contains invalid values.
    """
    table = LatencyTable.load(path)
    for text in (*warnings_of(table), *unknown_backend(table)):
        _log.warning("%s: %s", path, text)
    return table


def is_worse(table: LatencyTable, other: LatencyTable) -> bool:
    """Whether a table is worse than another one; see `why_worse`."""
    return why_worse(table, other) is not None


def why_worse(table: LatencyTable, other: LatencyTable) -> str | None:
    """Say in words why a table is worse than another one; `None` if it is not.

    A table is worse if its verdict is. With the same verdict, it is worse if its mean error on networks is larger. If
    both tables are good, the difference must exceed two standard errors: two measurements of a good table differ by
    chance. The errors of n networks are taken as normally distributed, so that the standard error of the mean absolute
    error e is e · sqrt((π / 2 - 1) / n).
    """
    grade, kept = verdict(table), verdict(other)
    if grade != kept:
        return warnings_of(table)[0] if grade > kept else None
    error, kept_error = (one.calibration.mean_relative_error for one in (table, other))
    if error is None or kept_error is None:
        return None
    chance = 0.0
    if grade is Verdict.GOOD:
        chance = 2 * math.hypot(_standard_error(table), _standard_error(other))
    if error <= kept_error + chance:
        return None
    return f"the mean error of the new table is {100 * error:.1f} %, that of the old one {100 * kept_error:.1f} %"


def _standard_error(table: LatencyTable) -> float:
    networks = max(table.calibration.networks, 1)
    return (table.calibration.mean_relative_error or 0.0) * math.sqrt((math.pi / 2 - 1) / networks)


def improvable(table: LatencyTable) -> bool:
    """Whether a longer measurement may make the table better."""
    return any(finding.noise for finding in findings(table))


def process_spread(costs: Sequence[Sequence[float]]) -> float | None:
    """Compute `Quality.process_spread`. The costs of the operators have shape (processes, operators)."""
    if len(costs) < 2:
        return None
    values = np.asarray(costs, dtype=np.float64)
    medians = np.median(values, axis=0)
    return float(np.sum(np.mean(np.abs(values - medians), axis=0)) / np.sum(medians))


def rank_correlation(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> float | None:
    """Compute `Quality.rank_correlation`; both arguments have shape (networks,). `None` for fewer than 6 networks."""
    if len(measured_ms) < _LEAST_RANKED:
        return None
    return spearman(np.asarray(predicted_ms), np.asarray(measured_ms))


def _grade(value: float, doubtful: float, bad: float) -> Verdict:
    return Verdict.BAD if value > bad else Verdict.DOUBTFUL if value > doubtful else Verdict.GOOD


def _kept(*found: Finding) -> list[Finding]:
    return [finding for finding in found if finding.verdict is not Verdict.GOOD]


def _of_calibration(table: LatencyTable) -> list[Finding]:
    calibration, quality = table.calibration, table.quality or Quality()
    found = []
    if calibration.mean_relative_error is not None:
        error = calibration.mean_relative_error
        grade = _grade(error, GOOD_UP_TO, BAD_FROM)
        if table.backend == "fit":
            grade = Verdict.DOUBTFUL if error > 2 * GOOD_UP_TO else Verdict.GOOD
        text = f"its mean error on {calibration.networks} measured networks is {100 * error:.1f} %"
        found.append(Finding(grade, text, noise=True))
    if calibration.networks and table.backend != "fit":
        factor = max(calibration.scale, 1 / calibration.scale) if calibration.scale > 0 else float("inf")
        text = f"whole networks take {calibration.scale:.3g} times the sum of their operators"
        found.append(Finding(_grade(factor, SCALE_DOUBTFUL, SCALE_BAD), text))
        if calibration.offset_ms < 0 and quality.smallest_ms:
            share = -calibration.offset_ms / quality.smallest_ms
            text = f"{-calibration.offset_ms:.3g} ms had to be subtracted from every network"
            found.append(Finding(_grade(share, OFFSET_DOUBTFUL, OFFSET_BAD), text))
    if quality.rank_correlation is not None:
        text = f"it ranks measured networks with a correlation of only {quality.rank_correlation:.2f}"
        grade = _grade(-quality.rank_correlation, -RANK_DOUBTFUL, -RANK_BAD)
        if table.backend == "fit":  # of ten or twenty networks left out, so the order says less
            grade = Verdict.DOUBTFUL if quality.rank_correlation < RANK_BAD else Verdict.GOOD
        elif (calibration.mean_relative_error or 0.0) <= GOOD_UP_TO:
            grade = min(grade, Verdict.DOUBTFUL)  # the networks of the space differ by little more than the noise
        found.append(Finding(grade, text, noise=True))
    return _kept(*found)


def _of_fastest(table: LatencyTable) -> list[Finding]:
    """A fit to few networks, all of them large, may predict a negative latency for the smallest one."""
    smallest = table.own_costs().smallest if table.fitted_to_layers else 1.0
    text = f"it predicts {smallest:.3g} ms for the fastest network, so measure smaller networks as well"
    return [] if smallest > 0 else [Finding(Verdict.DOUBTFUL, text)]


def _of_samples(table: LatencyTable) -> list[Finding]:
    quality, costs = table.quality or Quality(), list(table.operators.values())
    # Whole networks that the table predicts well show that its medians are right although the samples scatter.
    worst = Verdict.DOUBTFUL if table.calibration.networks else Verdict.BAD
    total = sum(cost.cost for cost in costs)
    spread = math.hypot(*(cost.spread for cost in costs)) / total if total > 0 else 0.0
    found = [
        Finding(
            min(_grade(spread, GOOD_UP_TO, BAD_FROM), worst),
            f"repeated samples scatter: the sum of all operators has a standard error of {100 * spread:.0f} %",
            noise=True,
        )
    ]
    if quality.process_spread is not None:
        text = f"the measuring processes differ by {100 * quality.process_spread:.1f} %"
        found.append(Finding(min(_grade(quality.process_spread, GOOD_UP_TO, BAD_FROM), worst), text, noise=True))
    # All calls take the same overhead, so equal latencies are equal costs.
    distinct = len({float(f"{cost.cost:.6g}") for cost in costs})
    if len(costs) > 1 and distinct == 1:
        text = f"all {len(costs)} operators take the same time, {statistics.fmean(c.cost for c in costs):.4g} ms"
        found.append(Finding(Verdict.BAD, text))
    elif len(costs) >= 4 and distinct <= len(costs) / 2:
        text = f"{len(costs)} operators have only {distinct} different latencies: the resolution is too coarse"
        found.append(Finding(Verdict.DOUBTFUL, text))
    elif quality.constant_samples:
        text = "all samples of each operator are equal, which is plausible only for a simulator"
        found.append(Finding(Verdict.DOUBTFUL, text))
    return _kept(*found)


def _of_machine(table: LatencyTable) -> list[Finding]:
    quality = table.quality or Quality()
    found = []
    if quality.other_cores is not None and quality.cores is not None:
        free = max(quality.cores - (table.threads or 1), 0)
        if quality.other_cores > free + CORES_TOLERATED:
            text = f"other programs used {quality.other_cores:.1f} of {quality.cores} cores during the measurement"
            found.append(Finding(Verdict.DOUBTFUL, text))
    if quality.stolen is not None and quality.stolen > STOLEN_DOUBTFUL:
        text = f"{100 * quality.stolen:.0f} % of the CPU time went to other virtual machines during the measurement"
        found.append(Finding(Verdict.DOUBTFUL, text))
    return found
