"""The pages of the benchmarks: tables agree with the CSV files, and files and modules that they name exist."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.constants import BENCHMARKS, REPOSITORY
from benchmarks.markdown import markdown_table, rounded

HISTORY = BENCHMARKS / "HISTORY.md"
PAGES = sorted(BENCHMARKS.rglob("*.md"))


def relative(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def differing(page: Path) -> bool:
    text = page.read_text(encoding="utf-8")
    return tables.with_tables(text) != text


@pytest.mark.parametrize("page", [page for page in tables.pages() if page != HISTORY], ids=relative)
def test_tables_agree_with_the_csv_files(page: Path) -> None:
    assert not differing(page), "run `python -m benchmarks.tables`"


@pytest.mark.slow
@pytest.mark.documentation
def test_tables_of_the_history_agree_with_the_csv_files() -> None:
    assert not differing(HISTORY), "run `python -m benchmarks.tables`"


def test_check_reports_a_page_that_differs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: published_networks -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(tables, "pages", lambda: [page])
    monkeypatch.setattr(tables, "REPOSITORY", tmp_path)
    monkeypatch.setattr("sys.argv", ["tables", "--check"])
    with pytest.raises(SystemExit, match="1"):
        tables.main()
    assert "old" in page.read_text()
    monkeypatch.setattr("sys.argv", ["tables"])
    tables.main()
    made = page.read_text()
    assert made.startswith("before\n<!-- table: published_networks -->\n| network |")
    assert made.endswith("|\n<!-- end -->\nafter\n")
    monkeypatch.setattr("sys.argv", ["tables", "--check"])
    tables.main()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table: published_networks -->\n", "lacks its"),
        ("<!-- table: no_such_table -->\n<!-- end -->\n", "there is no table no_such_table"),
    ],
)
def test_a_marker_that_is_wrong_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tables.with_tables(text)


def test_every_table_is_used() -> None:
    used = {name for page in tables.pages() for name in tables.START.findall(page.read_text(encoding="utf-8"))}
    assert used == set(tables.TABLES)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#]+)#?([^)]*)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
            assert not anchor or anchor in anchors(page.parent / target), f"{target}#{anchor}"
    for module in re.findall(r"-m (benchmarks[\w.]*)", text):
        assert find_spec(module) is not None, module


def test_markdown_tables() -> None:
    assert markdown_table(("a", "b"), [(1, "x")]) == "| a | b |\n|---|---|\n| 1 | x |\n"
    with pytest.raises(ValueError, match="a row has 1 cells, the table 2 columns"):
        markdown_table(("a", "b"), [(1,)])


@pytest.mark.parametrize(("value", "digits", "shown"), [("0.855", 2, "0.86"), (4.55, 1, "4.6"), (-0.5, 0, "-1")])
def test_halves_are_rounded_away_from_zero(value: float | str, digits: int, shown: str) -> None:
    assert rounded(value, digits) == shown
