"""The table that compares a shared search with a search for each device and budget."""

from __future__ import annotations

import json

import pytest

from benchmarks.search_quality import one_for_all
from benchmarks.search_quality.one_for_all import compared, separate_rows


def shared(lost: dict[str, float]) -> list[dict[str, str]]:
    """Made-up results: the networks of separate searches, with some regret more for each seed."""
    return [
        {**row, "regret": str(float(row["regret"]) + lost[row["seed"]]), "training_cpu_seconds": "100",
         "comparison_cpu_seconds": "20" if (row["target"], row["budget"]) == ("cpu_torch", "0.25") else "4"}
        for row in separate_rows(set(lost))
    ]  # fmt: skip


def test_difference_and_cost_by_hand() -> None:
    rows = shared({"0": 0.01, "1": 0.03})
    assert len(rows) == 12
    head, _, separate, together, difference = compared(rows).splitlines()
    assert head.startswith("| for 6 pairs of target and budget, 2 seeds |")
    # 6 searches of 100 s with a whole comparison of 20 s each, against one search with a whole one and 5 of 4 s
    assert separate.endswith("| 6 | 720 |")
    assert together.endswith("| 1 | 140 (0.194 of it) |")
    # 1 and 3 points more: 2 on average, with a standard error of sqrt(2) / sqrt(2)
    assert "| +2.00 ± 1.00 |" in difference
    regrets = [100 * float(row["regret"]) for row in rows]
    assert f"| {sum(regrets) / 12:.2f} | {max(regrets):.2f} | 100 % |" in together


def test_one_seed_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="needs two seeds, and there are 1"):
        compared(shared({"0": 0.01}))


def test_short_trials_do_not_count_as_results(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {"seed": "0", "training_cpu_seconds": "60"}
    quick = {"settings": json.dumps({**one_for_all.SETTINGS, **one_for_all.QUICK}, sort_keys=True), **timed}
    real = {"settings": json.dumps(one_for_all.SETTINGS, sort_keys=True), **timed}
    monkeypatch.setattr(one_for_all, "read_rows", lambda _: [quick, real])
    assert one_for_all.shared_rows() == [real]
    assert one_for_all.shared_rows(changes=one_for_all.QUICK) == [quick]


def test_rows_without_cpu_seconds_count_until_their_seed_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = json.dumps(one_for_all.SETTINGS, sort_keys=True)
    old = [{"settings": settings, "seed": seed, "training_cpu_seconds": ""} for seed in ("0", "1")]
    new = [{"settings": settings, "seed": "0", "training_cpu_seconds": "60"}]
    with monkeypatch.context() as patched:
        patched.setattr(one_for_all, "read_rows", lambda _: [*old, *new])
        assert one_for_all.shared_rows() == [old[1], *new]
    rows = shared({"0": 0.01, "1": 0.03})
    for row in rows:
        if row["seed"] == "1":
            row["training_cpu_seconds"] = row["comparison_cpu_seconds"] = ""
    assert "| 1 | 140 (0.194 of it) |" in compared(rows)
