"""Paths that are typed start from the working directory, unless the recipe's folder has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nni_proxyless.cli.entry import main
from nni_proxyless.cli.settings import with_paths_from_here


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in ("recipe/both", "here/both", "here/only", "recipe/there"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "here" / "own.yml").touch()
    (tmp_path / "here" / "mobilenetv2_digits").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data_dir", "only", "here/only"),
        ("teacher", "only", "here/only"),
        ("data_dir", "both", None),  # as it always was: the recipe's folder comes first
        ("data_dir", "there", None),
        ("data_dir", "nowhere", None),
        ("space", "own.yml", "here/own.yml"),
        ("space", "mobilenetv2_digits", None),  # the name of an included space, whatever lies here
        ("epochs", 3, None),
        ("data_dir", None, None),
        ("strategy", "only", None),
    ],
)
def test_a_path_that_is_only_here_is_meant(folders: Path, key: str, value: Any, expected: str | None) -> None:
    found = with_paths_from_here({key: value}, folders / "recipe")
    assert found == {key: value if expected is None else str(folders / expected)}


def test_search_takes_data_from_the_working_directory(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "recipe" / "recipe.yml").write_text(
        "data: imagefolder\nspace: mobilenetv2_digits\nbudget_fraction: 0.5\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["search", str(folders / "recipe" / "recipe.yml"), "data_dir=only"])
    assert ended.value.code == 2
    assert str(folders / "here" / "only") in capsys.readouterr().err  # which has no images
