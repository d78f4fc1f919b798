"""Jobs in processes of their own, and the CSV files of their rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.jobs import run_jobs
from benchmarks.results_csv import append_rows, publish, read_rows


def test_jobs_return_their_results_and_failures_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [{"number": number} for number in (3, -1, 5)]
    found = list(run_jobs("tests.benchmarks.echo_job", jobs, processes=1, minutes=5))
    assert found == [3, 5]
    printed = capsys.readouterr().out
    assert "3 jobs to run" in printed
    assert "2/3 FAILED {'number': -1}: ['ValueError: a negative number']" in printed


def test_no_job_starts_after_the_time_is_over() -> None:
    assert list(run_jobs("tests.benchmarks.echo_job", [{"number": 1}], processes=1, minutes=-1)) == []


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_rows_are_appended(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / name
    assert read_rows(path) == []
    append_rows([{"a": 1, "b": "x, y"}], path, ("a", "b"))
    append_rows([{"a": 2, "b": ""}], path, ("a", "b"))
    assert read_rows(path) == [{"a": "1", "b": "x, y"}, {"a": "2", "b": ""}]


def test_published_rows_have_machine_and_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = publish("cost", [{"step": "weight", "value": 0.5}], ("torch",), tmp_path)
    (row,) = read_rows(path)
    assert path.name.startswith("cost-")
    assert (row["step"], row["value"]) == ("weight", "0.5")
    assert row["processor"]
    assert row["torch"]
    assert "weight  0.5" in capsys.readouterr().out
    publish("cost", [{"step": "gates", "value": 1}], ("torch",), tmp_path, append=True)
    assert [row["step"] for row in read_rows(path)] == ["weight", "gates"]
    publish("cost", [{"step": "weight", "value": 2}], ("torch",), tmp_path)
    assert [row["value"] for row in read_rows(path)] == ["2"]
