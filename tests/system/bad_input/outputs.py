"""Outputs that cannot be written, which is said before anything slow starts."""

from __future__ import annotations

import os
from pathlib import Path

from .case import Case

LONG = "n" * 300


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


# A folder is to be written: the command, the option's name in no particular form, and what is wrong with the place.
_FOLDER_COMMANDS = (
    "search recipe.yml --output {}",
    "retrain architecture.json --output {}",
    "export found --out {}",
    "report found --out {}",
    "decode found --out {}",
    "run config.yml --results {}",
    "latency validate table.yml --space space.yml --out {}",
)
_FILE_COMMANDS = (
    "latency measure --space space.yml --backend torch --networks 0 --out {}",
    "latency measure --space space.yml --backend torch --networks 0 --out made.yml --samples {}",
    "latency fit --measurements measured.csv --out {}",
    "latency fit --measurements measured.csv --out made.yml --suggest 2 --suggestions {}",
    "latency suggest --space space.yml --networks 2 --out {}",
    "latency predict table.yml --space space.yml --architectures networks.csv --out {}",
    "latency import published.yaml --format proxylessnas --out {}",
    "decode found --table table.yml --front {}",
)

CASES = [
    *[
        Case(command.format(place), received, "folder", files)
        for command in _FOLDER_COMMANDS
        for place, received, files in (
            ("notes.txt", "notes.txt", {}),
            ("notes.txt/out", "notes.txt", {}),
            (f"{LONG}", "nnn", {}),
            ("loop/out", "loop", {"loop": _loop}),
            ("/proc/nowhere/out", "/proc/nowhere", {}),
        )
    ],
    *[
        Case(command.format(place), received, "file", files)
        for command in _FILE_COMMANDS
        for place, received, files in (
            ("empty", "empty", {}),
            ("notes.txt/made.yml", "notes.txt", {}),
            (f"{LONG}.yml", "nnn", {}),
            ("loop/made.yml", "loop", {"loop": _loop}),
            ("/proc/made.yml", "/proc/made.yml", {}),
            ("pipe", "pipe", {"pipe": _pipe}),
        )
    ],
    # A command that would destroy what it reads, or one of two results.
    *[
        Case(command, received, says)
        for command, received, says in (
            ("latency measure --space space.yml --backend flops --out space.yml", "space.yml", "would replace"),
            (
                "latency measure --space space.yml --backend flops --out t.yml --samples space.yml",
                "space.yml",
                "replace",
            ),
            (
                "latency measure --space space.yml --backend flops --out t.yml --samples t.yml",
                "t.yml",
                "give two files",
            ),
            ("latency fit --measurements measured.csv --out measured.csv", "measured.csv", "would replace"),
            (
                "latency fit --measurements measured.csv --basis fitted.yml --out fitted.yml",
                "fitted.yml",
                "would replace",
            ),
            (
                "latency fit --measurements measured.csv --counts counts.csv --out counts.csv",
                "counts.csv",
                "would replace",
            ),
            (
                "latency fit --measurements measured.csv --out t.yml --suggest 2 --suggestions t.yml",
                "t.yml",
                "two files",
            ),
            ("latency suggest --space space.yml --networks 2 --out space.yml", "space.yml", "would replace"),
            (
                "latency suggest --space space.yml --among networks.csv --networks 2 --out networks.csv",
                "networks.csv",
                "replace",
            ),
            (
                "latency predict fitted.yml --architectures networks.csv --out networks.csv",
                "networks.csv",
                "would replace",
            ),
            (
                "latency predict fitted.yml --architectures networks.csv --out ./fitted.yml",
                "fitted.yml",
                "would replace",
            ),
            (
                "latency import published.yaml --format proxylessnas --out published.yaml",
                "published.yaml",
                "would replace",
            ),
            ("decode found --table table.yml --front table.yml", "table.yml", "would replace"),
            (
                "decode found/checkpoint.ckpt --table table.yml --front found/checkpoint.ckpt",
                "checkpoint.ckpt",
                "would replace",
            ),
        )
    ],
    Case("search recipe.yml", "results", "folder", {"results": "a file"}),
    Case("retrain architecture.json", "retrained", "folder", {"retrained": "a file"}),
    Case("export found", "exported", "folder", {"found/exported": "a file"}),
    Case("report found", "report", "folder", {"found/report": "a file"}),
    Case("run config.yml", "results", "folder", {"results": "a file"}),
    Case("search recipe.yml --output ''", "''", "folder"),
    Case("latency import published.yaml --format proxylessnas --out ''", "''", "file"),
    Case("latency suggest --space space.yml --out .", ".", "file"),
    Case("latency fit --measurements measured.csv --out ..", "..", "file"),
    Case("decode found --table table.yml --front made/", "made", "file", {"made": _folder}),
]
