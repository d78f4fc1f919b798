"""Runs all parts of the GPU check, each in a process of its own with a time limit. `check.sh` starts it.

    python -m benchmarks.gpu.check [--toy] [--parts correctness memory] [--minutes 8] [--output FOLDER]

It ends with a table of the parts, and with exit code 1 if a part failed. It imports no torch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.constants import CACHE, GPU_RESULTS, REPOSITORY
from benchmarks.results_csv import read_rows

# Part to its longest duration in seconds, in the order in which they run. What one leaves, the last one gets.
PARTS = {"correctness": 90, "search_cost": 75, "memory": 40, "latency": 100, "imagenet_epoch": 80, "cifar10": 150}
TOY_SECONDS = 300  # of each part, on a busy machine
TOY_OUTPUT = CACHE / "gpu_toy"
MINUTES = 8.0
LEAST_SECONDS = 20  # less is not enough to start a part


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Attributes:
        part: Name of the part.
        state: `ok`, `failed`, `time over` or `not started`.
        seconds: Duration in seconds.
        rows: Rows that it has written.
        file: Its CSV file; `None` if it has written none.
    """

    part: str
    state: str
    seconds: float
    rows: int = 0
    file: Path | None = None


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the running part ends too
    toy, output = options.toy, options.output
    device = "cpu" if toy and os.environ.get("DEVICE") != "cuda" else "cuda"
    end = time.monotonic() + 60 * options.minutes
    outcomes = []
    for part in options.parts:
        left = end - time.monotonic()
        limit = left if part == list(PARTS)[-1] else min(left, TOY_SECONDS if toy else PARTS[part])
        enough = limit >= LEAST_SECONDS
        outcomes.append(run_part(part, device, toy, output, limit) if enough else Outcome(part, "not started", 0.0))
        print_table(outcomes[-1:])
    sys.stdout.write("\n")
    print_table(outcomes, header=True)
    return 0 if all(outcome.state == "ok" for outcome in outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="a dry run of every part at a toy size, on the CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, help=f"time for all parts ({MINUTES:g})")
    parser.add_argument("--output", type=Path, help=f"folder of the CSV files ({GPU_RESULTS}; toys: {TOY_OUTPUT})")
    options = parser.parse_args()
    options.toy = options.toy or os.environ.get("DEVICE") == "cpu"
    options.minutes = options.minutes or (60.0 if options.toy else MINUTES)
    options.output = (options.output or (TOY_OUTPUT if options.toy else GPU_RESULTS)).resolve()
    return options


def run_part(part: str, device: str, toy: bool, output: Path, limit: float) -> Outcome:
    """Run a part, and end it and all processes that it has started when its time is over."""
    begun, now = time.monotonic(), time.time()
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        environment = {
            **os.environ,
            "TMPDIR": scratch,
            "NNI_PROXYLESS_CACHE": str(Path(scratch) / "cache"),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic algorithms need it
            "PYTHONUNBUFFERED": "1",
        }
        command = [
            sys.executable, "-W", "ignore", "-m", f"benchmarks.gpu.{part}", "--device", device,
            "--output", str(output), "--seconds", f"{limit:.0f}", *(["--toy"] if toy else []),
        ]  # fmt: skip
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, start_new_session=True)
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    state = "time over" if code is None else "ok" if code == 0 else "failed"
    files = [path for path in output.glob(f"{part}-*.csv") if path.stat().st_mtime >= now - 1]
    rows = sum(len(read_rows(path)) for path in files)
    if state == "ok" and not rows:
        state = "failed"
    return Outcome(part, state, time.monotonic() - begun, rows, files[0] if files else None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it has started, which have its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def print_table(outcomes: list[Outcome], header: bool = False) -> None:
    """Print a line for each part."""
    lines = [("part", "state", "seconds", "rows", "file")] if header else []
    lines += [(o.part, o.state, f"{o.seconds:.1f}", str(o.rows), str(o.file or "")) for o in outcomes]
    for part, state, seconds, rows, file in lines:
        sys.stdout.write(f"{part:<16}{state:<13}{seconds:>8}{rows:>6}  {file}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
