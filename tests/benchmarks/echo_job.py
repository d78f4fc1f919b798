"""A job for the test of `benchmarks.jobs`: returns its number, or fails. Run as a module in a process of its own."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.jobs import add_job_arguments, print_result


def run(job: dict[str, Any]) -> int:
    if job["number"] < 0:
        raise ValueError("a negative number")
    return int(job["number"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_job_arguments(parser, "number")
    print_result(parser.parse_args().job, run)
