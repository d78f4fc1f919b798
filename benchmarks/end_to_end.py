"""From nothing to exported networks by commands alone: run, retrain, export, report.

    .venv/bin/python benchmarks/end_to_end.py [--rounds 3]

The quickstart at full length, within its budget, on two targets of this machine; each network is retrained and exported
to ONNX, and each exported file is measured in several rounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import publish

from nni_proxyless import Architecture

REPOSITORY = Path(__file__).resolve().parent.parent
TARGETS = ("cpu_torch", "cpu_onnxruntime")


def command(folder: Path, *words: str) -> float:
    """Run a command of the package in a folder, and say how long it took."""
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
    parser.add_argument("--rounds", type=int, default=3, help="how often each exported network is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        publish("end_to_end", chain(Path(name), options.rounds), ("nni-proxyless", "torch", "onnxruntime"))


def chain(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row for each target."""
    results = folder / "results" / "quickstart"
    run_s = command(folder, "run", str(REPOSITORY / "experiments" / "quickstart" / "config.yml"))
    rows = []
    for target in TARGETS:
        found = results / target
        retrain_s = command(folder, "retrain", str(found))
        exports, export_s = [], 0.0
        for _ in range(rounds):
            seconds = command(folder, "export", str(found / "retrained"), "--format", "onnx")
            export_s = export_s or seconds
            exported = json.loads((found / "retrained" / "exported" / "export.json").read_text(encoding="utf-8"))
            (onnx,) = exported["formats"]
            exports.append(onnx["measured_latency_ms"] / onnx["predicted_latency_ms"] - 1)
        card = json.loads((found / "retrained" / "model_card.json").read_text(encoding="utf-8"))
        architecture = Architecture.load(found / "architecture.json")
        assert architecture.predicted_latency_ms is not None
        assert architecture.budget_ms is not None
        assert architecture.measured_latency_ms is not None
        rows.append(
            {
                "target": target,
                "budget_ms": round(architecture.budget_ms, 4),
                "predicted_ms": round(architecture.predicted_latency_ms, 4),
                "part_of_budget": round(architecture.predicted_latency_ms / architecture.budget_ms, 3),
                "measured_over_predicted": round(
                    architecture.measured_latency_ms / architecture.predicted_latency_ms - 1, 4
                ),
                "searched_top1": round(architecture.metrics["default"], 4),
                "retrained_top1": round(card["results"]["validation"]["top1"], 4),
                "onnx_over_predicted": round(statistics.median(exports), 4),
                "onnx_rounds": " ".join(f"{e:+.4f}" for e in exports),
                "run_s": round(run_s),
                "retrain_s": round(retrain_s),
                "export_s": round(export_s),
            }
        )
    report_s = command(folder, "report", str(results))
    with (results / "report" / "cross_table.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            sys.stdout.write(f"{row}\n")
    total = run_s + report_s + sum(row["retrain_s"] + row["export_s"] for row in rows)
    return [{**row, "report_s": round(report_s), "total_s": round(total)} for row in rows]


if __name__ == "__main__":
    main()
