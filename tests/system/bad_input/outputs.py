"""Outputs that cannot be written, which is said before anything slow starts."""

from __future__ import annotations

from pathlib import Path

from .case import Case

LONG = "n" * 300


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


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
