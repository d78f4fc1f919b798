"""A strategy of one's own whose module cannot exist is refused without an import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nni_proxyless.errors import RecipeError
from nni_proxyless.search.strategy_name import check_strategy


@pytest.mark.parametrize(
    ("name", "missing"),
    [("no.such:Class", "no"), ("nowhere:Class", "nowhere"), ("mine.nothing:Class", "mine.nothing"),
     ("mine.deep.nothing:Class", "mine.deep"), ("xml.dom.nothing:Class", "xml.dom.nothing")],
)  # fmt: skip
def test_a_module_that_does_not_exist(name: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=f"cannot be loaded: there is no module '{missing}'"):
        check_strategy(name)
    assert "mine" not in sys.modules


def test_modules_that_exist_are_left_to_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/search.py"):
        (tmp_path / "mine" / name).write_text("raise RuntimeError('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    check_strategy("proxyless")
    check_strategy("mine:Search")
    check_strategy("mine.inner.search:Search")  # `inner` is a namespace package
    check_strategy("nni.nas.strategy:DARTS")
    assert "mine" not in sys.modules


@pytest.mark.parametrize("name", ["os:path", "os:Nothing", "collections:OrderedDict", "os.path:join"])
def test_classes_of_imported_modules_are_looked_at(name: str) -> None:
    with pytest.raises(RecipeError, match="not a subclass of NNI's OneShotStrategy"):
        check_strategy(name)
