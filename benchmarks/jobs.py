"""Long benchmarks consist of independent jobs. Each job runs in a process of its own and returns rows of a CSV file."""

from __future__ import annotations

import argparse
import json
import multiprocessing.pool
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.constants import CACHE, PROCESSES, REPOSITORY


def add_job_arguments(parser: argparse.ArgumentParser, job_name: str) -> None:
    """Add the options that all benchmarks with jobs have.

    Args:
        parser: Parser of the benchmark's command line.
        job_name: What the benchmark calls one job, for the help text.
    """
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's train.tar.xz")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--minutes", type=float, default=float("inf"), help=f"start no {job_name} after this long")
    parser.add_argument("--job", help=argparse.SUPPRESS)


def print_result(job: str, run: Callable[[dict[str, Any]], Any]) -> None:
    """Run one job, given as JSON, and print its result as JSON for `run_jobs`."""
    sys.stdout.write("\n" + json.dumps(run(json.loads(job))) + "\n")


def run_jobs(module: str, jobs: list[dict[str, Any]], processes: int, minutes: float) -> Iterator[Any]:
    """Yield the result of each job as it ends.

    A job that fails is reported and yields nothing, so a later run of the benchmark retries it. Each job has a process
    of its own, since NNI's strategies leave state behind in a process.

    Args:
        module: Module that runs one job: `python -m <module> --job <JSON>`, which calls `print_result`.
        jobs: Jobs in the order in which they start.
        processes: How many jobs run at a time.
        minutes: No job starts after this long.
    """
    end = time.monotonic() + 60 * minutes

    def run(job: dict[str, Any]) -> tuple[dict[str, Any], subprocess.CompletedProcess[str] | None]:
        if time.monotonic() > end:
            return job, None
        command = [sys.executable, "-W", "ignore", "-m", module, "--job", json.dumps(job)]
        environment = {**os.environ, "NNI_PROXYLESS_CACHE": str(CACHE)}
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, env=environment)
        return job, done

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
