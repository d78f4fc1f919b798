"""Judge all recorded searches again, after further trainings of the ground truth.

    python -m benchmarks.search_quality.rescore

Nothing is searched. The script makes everything that follows from `networks.csv` anew: `ground_truth.csv`, the columns
`accuracy`, `best_accuracy`, `regret` and `percentile` of the recorded searches, both pictures, and the tables of all
pages.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import tables
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.goals import goals_table
from benchmarks.search_quality.ground_truth import summary
from benchmarks.search_quality.ground_truth.contenders import RESULTS
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import scored
from benchmarks.search_quality.search_quality import draw_results
from benchmarks.search_quality.tables import ground_truth, recorded_goals
from nni_proxyless.files.writing import write_csv


def rescore(path: Path, truth: GroundTruth) -> int:
    """Write the scores of a file's rows anew; the other columns stay as they are.

    Returns:
        The number of rows whose scores have changed.
    """
    rows = read_rows(path)
    changed = 0
    for row in rows:
        new = scored(truth, row["architecture"], row["target"], float(row["budget"]))
        scores = {key: str(value) for key, value in new.items() if key not in ("target", "budget", "budget_ms")}
        changed += any(row[key] != value for key, value in scores.items())
        row.update(scores)
    if changed:
        write_csv(path, list(rows[0]), rows)
    return changed


def main() -> None:
    truth = ground_truth()
    summary.write(truth)
    for path in RESULTS:
        sys.stdout.write(f"{path.name}: {rescore(path, truth)} rows changed\n")
    draw_results(truth)
    sys.argv = sys.argv[:1]
    tables.main()
    sys.stdout.write(f"\n{goals_table(recorded_goals())}")


if __name__ == "__main__":
    main()
