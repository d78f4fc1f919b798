"""The options that show what a command would do, without doing it."""

from __future__ import annotations

import argparse


def add_plan(parser: argparse.ArgumentParser, dry_run: str) -> None:
    """Add `--show-recipe` and `--dry-run`.

    Args:
        parser: Parser of the command.
        dry_run: Help text of `--dry-run`.
    """
    parser.add_argument(
        "--show-recipe",
        action="store_true",
        help="print all settings as they will be used, and where each comes from; start nothing",
    )
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
