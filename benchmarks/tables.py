"""Write the tables of the documents from the committed CSV files.

    python -m benchmarks.tables [--check]

A table stands between the lines `<!-- table: NAME -->` and `<!-- end -->`. `--check` writes nothing: it lists the pages
whose tables differ from the CSV files, and exits with status 1 if there are any.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.cifar10.tables import TABLES as CIFAR10_TABLES
from benchmarks.constants import BENCHMARKS, REPOSITORY
from benchmarks.cost.tables import TABLES as COST_TABLES
from benchmarks.latency.tables import TABLES as LATENCY_TABLES
from benchmarks.published_networks.tables import TABLES as PUBLISHED_TABLES
from benchmarks.retraining.tables import TABLES as RETRAINING_TABLES
from benchmarks.search_quality.tables import TABLES as SEARCH_QUALITY_TABLES
from benchmarks.spaces.tables import TABLES as SPACES_TABLES

TABLES: dict[str, Callable[[], str]] = {
    **LATENCY_TABLES, **COST_TABLES, **SEARCH_QUALITY_TABLES, **CIFAR10_TABLES, **RETRAINING_TABLES,
    **PUBLISHED_TABLES, **SPACES_TABLES,
}  # fmt: skip
START = re.compile(r"<!-- table: ([\w-]+) -->\n")
BLOCK = re.compile(START.pattern + r"(.*?)<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """All documents that may contain tables."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), *sorted(BENCHMARKS.rglob("*.md"))]


def with_tables(text: str) -> str:
    """A page with its tables made anew.

    Raises:
        ValueError: A table has no end, or there is no table of that name.
    """
    names = [match[1] for match in START.finditer(text)]
    if names != [match[1] for match in BLOCK.finditer(text)]:
        raise ValueError("a table lacks its `<!-- end -->`")
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise ValueError(f"there is no table {unknown[0]}; there are {', '.join(sorted(TABLES))}")
    return BLOCK.sub(lambda match: f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}<!-- end -->", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a page differs")
    options = parser.parse_args()
    different = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = with_tables(text)
        if made != text:
            different.append(page)
            if not options.check:
                page.write_text(made, encoding="utf-8")
    for page in different:
        sys.stdout.write(f"{'differs' if options.check else 'written'}: {page.relative_to(REPOSITORY)}\n")
    if options.check and different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
