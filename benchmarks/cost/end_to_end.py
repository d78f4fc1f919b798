"""How long it takes from a config file to exported networks: `run`, `retrain`, `export` and `report`.

    python -m benchmarks.cost.end_to_end [--rounds 3] [--budget-fraction 0.5] [--keep FOLDER]

The script runs `experiments/budgets` at full length with one budget on two targets of this machine. It retrains each
network, exports it to ONNX, and measures the exported file in several rounds. The reported time counts one round. The
script also checks the report: what it says about a target's own network has to agree with the cross table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.constants import COST_RESULTS, REPOSITORY
from benchmarks.results_csv import publish
from nni_proxyless import Architecture

EXPERIMENT = REPOSITORY / "experiments" / "budgets"


def command(folder: Path, *words: str) -> float:
    """Run a command of the package in a folder, and return the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).parent / "nni-proxyless"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"nni-proxyless {' '.join(words)} failed:\n{done.stderr}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each exported network")
    parser.add_argument(
        "--budget-fraction", type=float, default=0.5, help="budget as a fraction of the largest network's latency"
    )
    parser.add_argument("--keep", type=Path, help="folder for the output of all commands; it must not exist")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=options.keep is None)
        rows = chain(folder, options.rounds, options.budget_fraction)
    publish("end_to_end", rows, ("nni-proxyless", "torch", "onnxruntime"), COST_RESULTS)


def chain(folder: Path, rounds: int, budget_fraction: float) -> list[dict[str, Any]]:
    """One row for each target."""
    config = yaml.safe_load((EXPERIMENT / "config.yml").read_text(encoding="utf-8"))
    config["searchSpace"]["budget_fraction"]["_value"] = [budget_fraction]
    (folder / "budgets").mkdir()
    (folder / "budgets" / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(EXPERIMENT / "recipe.yml", folder / "budgets")
    run_s = command(folder, "run", "budgets/config.yml")
    results = folder / "results" / "budgets"
    with (results / "summary.csv").open(encoding="utf-8", newline="") as file:
        found = [(folder / row["architecture"]).parent for row in csv.DictReader(file)]
    rows = [network(folder, path, rounds) for path in found]
    report_s = command(folder, "report", str(results))
    fastest = {row["target"]: report_calls_fastest(results / "report", row["target"]) for row in rows}
    total = run_s + report_s + sum(row["retrain_s"] + row["export_s"] for row in rows)
    return [
        {**row, "own_fastest": fastest[row["target"]], "run_s": round(run_s), "report_s": round(report_s),
         "total_s": round(total)}
        for row in rows
    ]  # fmt: skip


def report_calls_fastest(report: Path, target: str) -> bool:
    """Whether the report calls the network found for a target the fastest of its accuracy class on that target.

    Two networks are in the same class if their accuracies differ by at most a point. Two latencies are equal if they
    differ by at most 1 %.

    Raises:
        SystemExit: The cross table says something else.
    """
    with (report / "cross_table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["found_for"]: row for row in csv.DictReader(file)}
    own = rows[target]
    of_its_class = [float(r[target]) for r in rows.values() if float(r["accuracy"]) >= float(own["accuracy"]) - 0.01]
    fastest = float(own[target]) * 0.99 <= min(of_its_class)
    page = (report / "report.html").read_text(encoding="utf-8")
    (sentence,) = re.findall(rf"{target}: its own network is (NOT )?the fastest", page)
    sys.stdout.write(f"{target}: {fastest=}, {own}\n")
    if fastest != (sentence == ""):
        raise SystemExit(f"report and cross table disagree about {target}")
    return fastest


def network(folder: Path, found: Path, rounds: int) -> dict[str, Any]:
    """Retrain and export the network that a search has found."""
    retrain_s = command(folder, "retrain", str(found))
    exports, export_s = [], 0.0
    for _ in range(rounds):
        seconds = command(folder, "export", str(found / "retrained"), "--format", "onnx")
        export_s = export_s or seconds
        exported = json.loads((found / "retrained" / "exported" / "export.json").read_text(encoding="utf-8"))
        (onnx,) = exported["formats"]
        if onnx["predicted_latency_ms"] is not None:
            exports.append(onnx["measured_latency_ms"] / onnx["predicted_latency_ms"] - 1)
            sys.stdout.write(f"{found.name}: {onnx['measured_latency_ms']} ms, clock {onnx['clock_latency_ms']} ms\n")
    card = json.loads((found / "retrained" / "model_card.json").read_text(encoding="utf-8"))
    architecture = Architecture.load(found / "architecture.json")
    assert architecture.predicted_latency_ms is not None
    assert architecture.budget_ms is not None
    assert architecture.measured_latency_ms is not None
    return {
        "target": architecture.target,
        "budget_ms": round(architecture.budget_ms, 4),
        "predicted_ms": round(architecture.predicted_latency_ms, 4),
        "part_of_budget": round(architecture.predicted_latency_ms / architecture.budget_ms, 3),
        "measured_over_predicted": round(architecture.measured_latency_ms / architecture.predicted_latency_ms - 1, 4),
        "searched_top1": round(architecture.metrics["default"], 4),
        "retrained_top1": round(card["results"]["validation"]["top1"], 4),
        "onnx_over_predicted": round(statistics.median(exports), 4) if exports else "",
        "onnx_rounds": " ".join(f"{e:+.4f}" for e in exports),
        "retrain_s": round(retrain_s),
        "export_s": round(export_s),
    }


if __name__ == "__main__":
    main()
