"""The documentation names only commands, keys, names and files that exist, and the correct defaults."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import nni_proxyless
from nni_proxyless.cli.entry import build_parser
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY

EVERY_OTHER_PAGE = [
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "SECURITY.md",
    *(path for name in ("docs/api", "benchmarks", "experiments") for path in sorted((REPOSITORY / name).rglob("*.md"))),
]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [*PAGES, *EVERY_OTHER_PAGE], ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_lines_of_prose_have_at_most_120_characters(page: Path) -> None:
    """Tables, programs and equations may be wider."""
    prose = re.sub(r"^ *```.*?^ *```|^\$\$.*?\$\$|^\|.*?$", "", page.read_text(), flags=re.M | re.S)
    assert [line for line in prose.splitlines() if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_that_are_named_exist(page: Path) -> None:
    names = re.findall(r"`((?:benchmarks|experiments|tests|docs|search_spaces)/[\w./-]*)`", page.read_text())
    for name in names:
        assert (REPOSITORY / name).exists(), f"{page.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_parse(page: Path) -> None:
    for line in re.findall(r"^(nni-proxyless [^#\n]+)", page.read_text(), flags=re.M):
        if "CONFIG" not in line:
            build_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_examples_compile_and_their_imports_work(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S):
        compile(block, page.name, "exec")
        for line in re.findall(r"^from nni\S* import .+$", block, flags=re.M):
            exec(line, {})


def test_make_targets_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), flags=re.M):
            done = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, check=False)
            assert done.returncode == 0, f"{page.name}: make {target}"


def test_recipe_page_lists_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (REPOSITORY / "docs" / "recipe.md").read_text(), flags=re.M)
    assert [key for key, _ in rows] == list(Recipe.keys())
    defaults = Recipe.from_dict({}).to_dict()
    for key, shown in rows:
        assert shown.strip("` ") == shown_default(defaults[key]), key


def test_retraining_page_lists_every_key_with_its_default() -> None:
    text = (REPOSITORY / "docs" / "retrain.md").read_text()
    (table,) = re.findall(r"^\| key \| default \|.*\n(?:\|.*\n)+", text, flags=re.M)
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", table, flags=re.M)
    assert [key for key, _ in rows] == list(RetrainRecipe.keys())
    defaults = RetrainRecipe().to_dict()
    for key, shown in rows:
        assert shown.strip("` ") == shown_default(defaults[key]), key


def shown_default(default: object) -> str:
    return "" if default in (None, {}) else str(default).lower() if isinstance(default, bool) else str(default)


def test_public_names_are_there() -> None:
    for name in nni_proxyless.__all__:
        assert getattr(nni_proxyless, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        nni_proxyless.Missing  # noqa: B018


def test_changelog_has_an_entry_for_this_version_or_the_next() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    assert "## Unreleased" in text or f"## {nni_proxyless.__version__}" in text
