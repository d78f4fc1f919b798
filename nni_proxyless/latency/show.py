"""Text views of a latency table: its origin, the costs of each layer's candidates, its most expensive entries."""

from __future__ import annotations

from .costs import SpaceCosts
from .judgement import findings, verdict
from .table import LatencyTable

_BAR = 30


def describe(table: LatencyTable) -> list[str]:
    """Describe the device, backend, entries, calibration and quality of a table, one line each."""
    device, calibration = table.device, table.calibration
    cores = "" if device.cores is None else f", {device.cores} cores"
    settings = [table.dtype] + [
        f"{label} {value}" for label, value in (("threads", table.threads), ("batch", table.batch)) if value is not None
    ]
    lines = [
        f"device   {device.name}: {device.processor}{cores}",
        f"backend  {table.backend} {table.backend_version} ({', '.join(settings)})",
        f"entries  {len(table.operators)} in {table.unit}, {table.date}",
    ]
    if table.source is not None:
        lines.append(f"source   {table.source}")
    if calibration.networks:
        lines.append(
            f"networks {calibration.scale:.4g} x sum {calibration.offset_ms:+.4g} ms, by {calibration.networks} whole "
            f"networks, mean error {100 * (calibration.mean_relative_error or 0.0):.1f} %"
        )
    elif table.unit == "ms":
        lines.append("networks not calibrated: the plain sum of operators")
    if table.unit == "ms" and table.backend != "published":
        found = findings(table)
        reasons = "; ".join(finding.text for finding in found)
        lines.append(f"quality  {verdict(table).name.lower()}{f': {reasons}' if reasons else ''}")
    return lines


def layer_bars(costs: SpaceCosts) -> list[str]:
    """Draw a bar for each candidate of each layer. All bars have the same scale.

    Costs of several layers at once are averaged over the candidates of the other layers.
    """
    fixed, layers = costs.averaged
    longest = max((cost for layer in layers.values() for cost in layer), default=0.0) or 1.0
    width = max(len(name) for names in costs.candidates.values() for name in names)
    lines = [f"every network  {fixed:.4g} {costs.unit}"]
    for label, values in layers.items():
        lines.append(label)
        for name, cost in zip(costs.candidates[label], values, strict=True):
            bar = "█" * round(_BAR * cost / longest) or "▏"
            lines.append(f"  {name.ljust(width)}  {cost:10.4g}  {bar}")
    lines.append(f"networks from {costs.smallest:.4g} to {costs.largest:.4g} {costs.unit}")
    return lines


def most_expensive(table: LatencyTable, count: int = 10) -> list[str]:
    """List the `count` most expensive entries, each with its share of the sum of all entries."""
    total = sum(cost.cost for cost in table.operators.values()) or 1.0  # a fit to equal latencies costs 0 everywhere
    ranked = sorted(table.operators.items(), key=lambda item: -item[1].cost)[:count]
    return [f"{cost.cost:10.4g} {table.unit}  {100 * cost.cost / total:4.1f} %  {entry}" for entry, cost in ranked]
