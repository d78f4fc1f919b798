"""The documentation site of `make docs`: complete, without a network, and with links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import nni_proxyless
from nni_proxyless.cli.entry import build_parser
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.documentation
SITE = REPOSITORY / "build" / "site"
# Pages that Sphinx makes for its search and index. Their scripts fill them in.
GENERATED = {"search.html", "genindex.html", "py-modindex.html"}


@dataclass
class Page(HTMLParser):
    """Links, loaded files and anchors of a page."""

    path: Path
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    equations: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.equations += tag == "math" and values.get("display") == "block"
        if "id" in values:
            self.anchors.add(values["id"])
        if "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loaded.append(values["href"])
        elif "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site() -> dict[str, Page]:
    assert (SITE / "index.html").is_file(), "there is no site; run `make docs`"
    return {str(path.relative_to(SITE)): Page(path) for path in SITE.rglob("*.html")}


def test_nothing_is_loaded_from_a_network(site: dict[str, Page]) -> None:
    assert len(site) > 30
    for name, page in site.items():
        for source in page.loaded:
            assert not re.match(r"(\w+:)?//", source), f"{name} loads {source}"
            if not source.startswith("data:"):
                assert (page.path.parent / unquote(source.partition("?")[0])).is_file(), f"{name}: {source}"
    for sheet in SITE.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), sheet


def test_every_link_leads_to_a_page_and_a_heading(site: dict[str, Page]) -> None:
    checked = 0
    for name, page in site.items():
        for link in page.links:
            if name in GENERATED or re.match(r"\w+:", link):
                continue
            target, _, anchor = link.partition("#")
            path = (page.path.parent / unquote(target)).resolve() if target else page.path
            assert path.is_file(), f"{name}: {link}"
            if anchor and path.suffix == ".html":
                assert unquote(anchor) in site[str(path.relative_to(SITE))].anchors, f"{name}: {link}"
            checked += 1
    assert checked > 2000


def test_every_equation_is_typeset(site: dict[str, Page]) -> None:
    written = (REPOSITORY / "docs" / "how_it_works.md").read_text(encoding="utf-8").count("$$") // 2
    page = site["docs/how_it_works.html"]
    assert page.equations == written
    assert "$" not in re.sub(r"<annotation.*?</annotation>", "", page.path.read_text(encoding="utf-8"))


def test_the_references_are_complete(site: dict[str, Page]) -> None:
    commands = site["docs/commands.html"].path.read_text(encoding="utf-8")
    for words, options in _commands(build_parser(), ("nni-proxyless",)):
        assert " ".join(words) in commands
        for option in options:
            assert f">{option}</" in commands, (words, option)
    recipe = site["docs/recipe.html"].path.read_text(encoding="utf-8")
    for key in Recipe.from_dict({}).to_dict():
        assert f">{key}</" in recipe, key
    documented = set().union(*(page.anchors for name, page in site.items() if name.startswith("docs/api/")))
    assert {f"nni_proxyless.{name}" for name in nni_proxyless.__all__ if name[0] != "_"} <= documented


def test_the_tutorial_was_executed(site: dict[str, Page]) -> None:
    text = site["docs/tutorial.html"].path.read_text(encoding="utf-8")
    assert len(re.findall(r"<img[^>]*_images/[0-9a-f]{32,}", text)) == 2  # pictures that its cells have drawn
    assert "torch.Size([2, 10])" in text


def _commands(parser: object, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield each command, and its options."""
    import argparse

    assert isinstance(parser, argparse.ArgumentParser)
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    yield words, [option for action in shown for option in action.option_strings]
    for action in shown:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _commands(below, (*words, name))
