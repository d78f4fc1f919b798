"""Files from somebody else start no program, and their names lead out of no folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nni_proxyless.errors import RecipeError, SpaceError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge.collect import collect
from nni_proxyless.report import find_results, make_report
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"
BAD = ["../../../x", "/etc/x", "a/b", "a\\b", "..", ".hidden", "", "  ", "a\nb", "a\x00b", "x" * 101]


def test_a_report_starts_no_program_of_a_recipe(tmp_path: Path) -> None:
    """The recipe of a search names a command. The report measures the baseline on targets of this machine."""
    folder = Path(shutil.copytree(RECORDED, tmp_path / "quickstart"))
    mark = tmp_path / "started"
    found = 0
    for path in folder.rglob("recipe.yml"):
        content = yaml.safe_load(path.read_text())
        if "targets" in content:
            command = f"touch {mark}; echo 1.0; true {{model}}"
            content["targets"] = {name: {"backend": "command", "command": command} for name in content["targets"]}
            path.write_text(yaml.safe_dump(content))
            found += 1
    assert found == 2
    baseline = Path(shutil.copytree(folder / "cpu_torch" / "retrained", folder / "baselines" / "half"))
    content = json.loads((baseline / "architecture.json").read_text())
    (baseline / "architecture.json").write_text(json.dumps({**content, "target": None}))
    assert any(trained.is_baseline for trained in find_results(str(folder)).trained)
    make_report(find_results(str(folder)), measure=True)
    assert not mark.exists()


@pytest.mark.parametrize("name", BAD)
def test_names_of_targets_and_spaces_stay_in_their_folder(name: str, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    content = {"data": "digits", "target": name, "targets": {name: {"backend": "torch"}}}
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    refused = r"the name of a target must be a name of at most 100|'target' must|a key has a character NUL"
    with pytest.raises(RecipeError, match=refused):
        Recipe.load(path).chosen_target()
    with pytest.raises(SpaceError, match="'name' must be a name of at most 100 printable characters"):
        SpaceSpec.from_dict({**tiny_spec.to_dict(), "name": name})


@pytest.mark.parametrize("target", ["../../x", "/tmp/x", ".."])
def test_collected_results_stay_in_their_folder(target: str, tmp_path: Path) -> None:
    trial = tmp_path / "home" / "environments" / "local-env" / "trials" / "abc"
    trial.mkdir(parents=True)
    content: dict[str, Any] = json.loads((RECORDED / "cpu_torch" / "architecture.json").read_text())
    (trial / "architecture.json").write_text(json.dumps({**content, "target": target}))
    job = SimpleNamespace(trialJobId="abc", status="SUCCEEDED", hyperParameters=[])
    outcome = collect(job, tmp_path / "home", tmp_path / "results", set())
    assert (outcome.folder, outcome.architecture) == (None, None)
    assert "damaged results: " in outcome.reason
    assert "'target'" in outcome.reason
    assert not (tmp_path / "results").exists()
