"""Tables of the pages about cost, made from the CSV files."""

from __future__ import annotations

from benchmarks.constants import COST_RESULTS, TARGET_NAMES
from benchmarks.markdown import markdown_table, rounded
from benchmarks.results_csv import read_rows

Row = dict[str, str]
ZEN_5 = "search_cost-amd-epyc-family-26-model-2.csv"
PROCESSORS = {
    "AMD EPYC, Zen 5": ZEN_5,
    "AMD EPYC, Zen 4": "search_cost-amd-epyc.csv",
    "AMD EPYC, Zen 3": "search_cost-amd-epyc-family-25-model-1.csv",
    "Intel Xeon, family 6 model 207": "search_cost-intel-r-xeon-r-processor-family-6-model-207.csv",
}
HUB_FILE = "hub_cost-amd-epyc-family-25-model-17.csv"
END_TO_END_FILE = "end_to_end-amd-epyc.csv"
NNI_TO_OURS = "NNI Proxyless / ours, weight + architecture"
# Name of a step to its row with seconds and its row with saved activations.
STEPS = {
    "weight step": ("weight", "weight"),
    "architecture step, `two_path`": ("two_path", "two_path"),
    "architecture step, `full`": ("full", "full"),
    "NNI `Proxyless`, weight step": ("NNI Proxyless weight", "NNI Proxyless"),
    "NNI `Proxyless`, architecture step": ("NNI Proxyless architecture", "NNI Proxyless"),
    "NNI `DARTS`, weight step": ("NNI DARTS weight", "NNI DARTS"),
    "weight + architecture step: NNI `Proxyless` / ours": (NNI_TO_OURS, ""),
}
# Costs of a whole search, which the script measures in channels_last only: name to part and row.
SEARCHES = {
    "the same, each with its own defaults": ("default", "NNI Proxyless as it comes / ours, weight + architecture"),
    "epoch of search / epoch of training": ("epoch", "search"),
}


def search_cost() -> str:
    """Cost of each kind of step on a Zen 5."""
    rows = read_rows(COST_RESULTS / ZEN_5)
    made = [
        (
            name,
            _cell(rows, "steps, channels_last", time),
            _cell(rows, "steps, contiguous", time),
            _value(rows, "steps, channels_last", saved, "saved activations"),
        )
        for name, (time, saved) in STEPS.items()
    ]
    made += [(name, _cell(rows, *row), "", "") for name, row in SEARCHES.items()]
    return markdown_table(("step", "time, channels_last", "time, contiguous", "saved activations"), made)


def search_cost_processors() -> str:
    """Cost of the steps and of an epoch on each processor, in channels_last."""
    columns = (
        "processor", "weights", "weight step", "`two_path`", "`full`", "NNI `Proxyless` / ours",
        "each with its own defaults", "epoch, `two_path`", "epoch, recipe's defaults",
    )  # fmt: skip
    part = "steps, channels_last"
    made = []
    for processor, file in PROCESSORS.items():
        rows = read_rows(COST_RESULTS / file)
        default = _value(rows, "default", SEARCHES["the same, each with its own defaults"][1])
        steps = [_value(rows, part, step) for step in ("weight", "two_path", "full")]
        ratio = _value(rows, part, NNI_TO_OURS)
        made.append((processor, "own", *steps, ratio, default, _value(rows, "epoch", "search"), ""))
        steps = [_value(rows, part, f"{step}, entangled weights") for step in ("weight", "two_path", "full")]
        if any(steps):
            ratio = _value(rows, part, "NNI Proxyless, weight + architecture / recipes' defaults")
            made.append(
                (processor, "entangled", *steps, ratio, "", "", _value(rows, "epoch", "search, recipes' defaults"))
            )
    return markdown_table(columns, made)


def search_cost_growth() -> str:
    """How cost grows with the number of candidates in each layer, on a Zen 5."""
    rows = read_rows(COST_RESULTS / ZEN_5)
    columns = ["candidates in each layer"]
    steps = ("weight", "two_path", "NNI DARTS weight")
    for unit in ("time", "saved activations"):
        columns += [f"{step}: {unit}" for step in steps]
    made = []
    for count in (2, 4, 8, 12):
        cells = [
            _value(rows, "growth", f"{step}, {count} candidates", f"{unit} with 2")
            for unit in ("time", "saved activations")
            for step in steps
        ]
        made.append((count, *cells))
    return markdown_table(columns, made)


HUB_STEPS = {
    "weight step": "weight",
    "architecture step, `two_path`": "two_path",
    "architecture step, `full`": "full",
    "NNI `Proxyless`, weight step": "NNI Proxyless weight",
    "NNI `Proxyless`, architecture step": "NNI Proxyless architecture",
}


def hub_cost() -> str:
    """Cost of each kind of step in the space of NNI's hub."""
    rows = read_rows(COST_RESULTS / HUB_FILE)
    made = []
    for name, what in HUB_STEPS.items():
        times = [_cell(rows, f"steps, {memory_format}", what) for memory_format in ("channels_last", "contiguous")]
        memory = "NNI Proxyless" if what.startswith("NNI") else what
        made.append((name, *times, _value(rows, "steps, channels_last", memory, "saved activations")))
    return markdown_table(("step", "time, channels_last", "time, contiguous", "saved activations"), made)


def hub_cost_ratios() -> str:
    """How much longer NNI's steps take than ours in the space of NNI's hub."""
    rows = read_rows(COST_RESULTS / HUB_FILE)
    names = {
        "weight step and `two_path`": "weight + two_path",
        "weight step and `full`": "weight + full",
        "weight step and `reinforce`": "weight + reinforce",
        "weight step, with our defaults": "weight step with the defaults",
    }
    parts = ("steps, channels_last", "steps, contiguous", "experiment")
    made = [
        (name, *(_cell(rows, part, f"NNI Proxyless / ours, {what}") for part in parts)) for name, what in names.items()
    ]
    return markdown_table(("ours", "both in channels_last", "both contiguous", "whole searches"), made)


def end_to_end() -> str:
    """Accuracy, latency and time of the chain from search to device."""
    columns = (
        "target", "predicted latency / budget", "top-1 after search", "top-1 after retraining",
        "measured / predicted, PyTorch network", "ONNX file / predicted, median", "search, s", "retrain, s",
        "export, s", "report, s", "total, s", "fastest network of its accuracy class on its target",
    )  # fmt: skip
    made = []
    for row in read_rows(COST_RESULTS / END_TO_END_FILE):
        onnx = row["onnx_over_predicted"]
        made.append(
            (
                TARGET_NAMES[row["target"]],
                rounded(row["part_of_budget"], 2),
                f"{100 * float(row['searched_top1']):.1f} %",
                f"{100 * float(row['retrained_top1']):.1f} %",
                f"{100 * float(row['measured_over_predicted']):+.1f} %",
                f"{100 * float(onnx):+.1f} %" if onnx else "",
                row["run_s"], row["retrain_s"], row["export_s"], row["report_s"], row["total_s"],
                "yes" if row["own_fastest"] == "True" else "no",
            )
        )  # fmt: skip
    return markdown_table(columns, made)


def _find(rows: list[Row], part: str, what: str, unit: str | None) -> Row | None:
    return next(
        (r for r in rows if (r["part"], r["what"]) == (part, what) and (unit is None or r["unit"] == unit)), None
    )


def _cell(rows: list[Row], part: str, what: str) -> str:
    """Median and range; empty if it was not measured."""
    row = _find(rows, part, what, None)
    if row is None:
        return ""
    middle, low, high = (rounded(row[key], 2) for key in ("value", "lowest", "highest"))
    return f"{middle} ({low}–{high})"


def _value(rows: list[Row], part: str, what: str, unit: str | None = None) -> str:
    """Median alone; empty if it was not measured."""
    row = _find(rows, part, what, unit)
    return rounded(row["value"], 2) if row else ""


TABLES = {
    "search_cost": search_cost,
    "search_cost_processors": search_cost_processors,
    "search_cost_growth": search_cost_growth,
    "hub_cost": hub_cost,
    "hub_cost_ratios": hub_cost_ratios,
    "end_to_end": end_to_end,
}
