"""Long benchmarks: independent jobs, each in a process of its own, whose results are lines of a CSV file."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import multiprocessing.pool
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

CACHE = Path(__file__).resolve().parent / "ground_truth" / "cache"


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file, which may be a `.csv.gz`; none if there is no such file."""
    if not path.exists():
        return []
    with _open(path, "rt") as file:
        return list(csv.DictReader(file))


def append(rows: list[dict[str, Any]], path: Path, columns: tuple[str, ...]) -> None:
    """Add lines to a CSV file, and its head where it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    with _open(path, "at") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _open(path: Path, mode: Literal["rt", "at"]) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf-8", newline="")
    return path.open(mode, encoding="utf-8", newline="")


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """What all of these benchmarks are told; `parser` gets it, `what` is the name of a job."""
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's train.tar.xz")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help=f"begin no {what} after this long")
    parser.add_argument("--job", help=argparse.SUPPRESS)


def answer(job: str, run: Callable[[dict[str, Any]], Any]) -> None:
    """In the process of one job: run it and print what it gives, for `results`."""
    sys.stdout.write("\n" + json.dumps(run(json.loads(job))) + "\n")


def results(script: str, jobs: list[dict[str, Any]], processes: int, minutes: float) -> Iterator[Any]:
    """What the jobs give, as they end; one that failed is reported and left out, to be run another time.

    Args:
        script: Is run with `--job` and the job as JSON, and calls `answer`. NNI's strategies leave things behind in a
            process, so each job has its own.
        jobs: In the order in which they begin.
        processes: How many run at a time.
        minutes: None begins later than this.
    """
    end = time.monotonic() + 60 * minutes

    def run(job: dict[str, Any]) -> tuple[dict[str, Any], subprocess.CompletedProcess[str] | None]:
        if time.monotonic() > end:
            return job, None
        command = [sys.executable, "-W", "ignore", script, "--job", json.dumps(job)]
        environment = {**os.environ, "NNI_PROXYLESS_CACHE": str(CACHE)}
        return job, subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    sys.stdout.write(f"{len(jobs)} jobs to run\n")
    with multiprocessing.pool.ThreadPool(processes) as pool:
        for number, (job, done) in enumerate(pool.imap_unordered(run, jobs), start=1):
            if done is None:
                continue
            if done.returncode == 0:
                sys.stdout.write(f"{number}/{len(jobs)} ")
                yield json.loads(done.stdout.strip().splitlines()[-1])
            else:
                sys.stdout.write(f"{number}/{len(jobs)} FAILED {job}: {done.stderr.strip().splitlines()[-1:]}\n")
            sys.stdout.flush()
