"""Facts in the documentation that the code knows: linked functions, quoted messages, generated tables, the version."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import json
import logging
import os
import re
from pathlib import Path

import pytest
import yaml

import nni_proxyless
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.files.settings import Settings, markdown_table
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY

DOCS = REPOSITORY / "docs"
HOW_IT_WORKS = (DOCS / "how_it_works.md").read_text(encoding="utf-8")
FUNCTIONS = sorted(set(re.findall(r"\[`([\w.]+)`\]\(\.\./(nni_proxyless/[\w/]+\.py)#([\w.]+)\)", HOW_IT_WORKS)))
# Messages of NNI itself that docs/troubleshooting.md explains.
# Messages of NNI and of the system.
OF_OTHERS = {
    "Tuner did not connect in 10 seconds", "Expecting value: line 1 column 1", "missing 'parameter_index'",
    "No such file or directory: 'kill'", "cannot enable executable stack as shared object requires",
}  # fmt: skip


@pytest.mark.parametrize(("shown", "file", "name"), FUNCTIONS, ids=[name for _, _, name in FUNCTIONS])
def test_functions_that_implement_equations_exist(shown: str, file: str, name: str) -> None:
    assert shown == name
    found = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        found = getattr(found, part)
    assert found.__doc__


def test_every_equation_is_linked_to_its_function() -> None:
    """A displayed equation is followed by the link to its function, or by a definition that needs none."""
    assert len(FUNCTIONS) > 25
    after = re.findall(r"\$\$.+?\$\$\n\n(\S+)", HOW_IT_WORKS, flags=re.DOTALL)
    assert len(after) == HOW_IT_WORKS.count("$$") // 2 >= 15
    unlinked = [word for word in after if word != "Code:"]
    assert unlinked == ["with"]  # the model of the final selection, whose solution is the next equation


def test_the_links_of_the_code_are_recognised() -> None:
    assert len(re.findall(r"\]\(\.\./nni_proxyless/", HOW_IT_WORKS)) == len(
        re.findall(r"\[`[\w.]+`\]\(\.\./nni_proxyless/[\w/]+\.py#[\w.]+\)", HOW_IT_WORKS)
    )


def test_messages_that_the_documentation_explains_exist() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \|", text, flags=re.MULTILINE)
    assert len(rows) > 50
    messages = "\n".join(_texts())
    for row in rows:
        if row not in OF_OTHERS:
            for part in row.split("…"):
                assert part.strip() in messages, f"no message has {part.strip()!r} ({row})"


def _texts() -> list[str]:
    """Return the texts in the package's code, with … for the values that are inserted."""
    found = []
    for path in sorted((REPOSITORY / "nni_proxyless").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_line_that_leaves_out_nnis_notices_leaves_out_all() -> None:
    """Below the level of an error, no logger of NNI is enabled by itself. Ours still says what it warns of."""
    importlib.import_module("nni.nas.experiment")
    importlib.import_module("nni.nas.oneshot.pytorch")
    (line,) = re.findall(r"^logging\.getLogger\(\"nni\"\).*", (DOCS / "your_space.md").read_text(), flags=re.M)
    before = logging.getLogger("nni").level
    names = [name for name in logging.root.manager.loggerDict if name.startswith("nni.")]
    assert {"nni.nas.experiment.experiment", "nni.nas.experiment.config.engine"} & set(names)
    try:
        exec(line, {"logging": logging})
        assert [name for name in names if logging.getLogger(name).isEnabledFor(logging.WARNING)] == []
        assert logging.getLogger("nni_proxyless.strategies").isEnabledFor(logging.WARNING)
    finally:
        logging.getLogger("nni").setLevel(before)


@pytest.mark.parametrize(("page", "settings"), [("recipe.md", Recipe), ("retrain.md", RetrainRecipe)])
def test_tables_of_settings_are_generated(page: str, settings: type[Settings]) -> None:
    kind = page.removesuffix(".md")
    assert markdown_table(settings) in (DOCS / page).read_text(encoding="utf-8"), (
        f"insert the output of `nni-proxyless schema {kind} --markdown`"
    )


def test_every_page_is_in_the_navigation() -> None:
    listed = set()
    for page in (DOCS / "index.md", DOCS / "api" / "index.md"):
        for tree in re.findall(r":::\{toctree\}\n(.*?):::", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for line in tree.split("\n\n", 1)[1].split("\n"):
                target = line.rpartition("<")[2].rstrip(">").strip()
                listed.add(os.path.relpath(page.parent / target.lstrip("/"), DOCS))
    pages = {
        str(path.relative_to(DOCS).with_suffix("")) for suffix in ("md", "ipynb") for path in DOCS.rglob(f"*.{suffix}")
    }
    missing = {page for page in pages if not any(fnmatch.fnmatch(page, pattern) for pattern in listed)}
    assert missing == {"index"}


def test_the_tutorial_is_stored_without_results() -> None:
    cells = json.loads((DOCS / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    assert len(cells) > 10
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == nni_proxyless.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)


@pytest.mark.parametrize(
    "form", sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_forms_are_complete(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.name == "config.yml":
        assert "blank_issues_enabled" in content
        return
    assert {"name", "description", "body"} <= set(content)
    for field in content["body"]:
        assert field["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert "value" in field["attributes"] if field["type"] == "markdown" else "label" in field["attributes"]
