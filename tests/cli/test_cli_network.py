"""Output of the commands `retrain`, `export`, `show` and `report`.

Errors yield a one-line message and leave no partly written files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nni_proxyless import Architecture
from nni_proxyless.cli.entry import main
from nni_proxyless.network.weights import save_weights
from tests.cli.test_cli import fails
from tests.helpers import largest_file
from tests.report.test_report import RECORDED


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """Folder of a search's results, with untrained weights."""
    folder = tmp_path / "results" / "cpu_torch"
    folder.mkdir(parents=True)
    for name in ("architecture.json", "recipe.yml", "history.csv", "latency_table.yml"):
        shutil.copyfile(RECORDED / "cpu_torch" / name, folder / name)
    save_weights(Architecture.load(folder / "architecture.json").build(), folder / "weights.pt")
    return folder


def prints(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    captured = capsys.readouterr()
    assert exit_.value.code == 0, captured.err
    return captured.out


def test_retrain_then_export(found: Path, capsys: Any) -> None:
    told = prints(["retrain", str(found), "epochs=2", "warmup_epochs=0", "threads=1", "--inherit"], capsys)
    assert "on 359 held-out images" in told
    card = json.loads((found / "retrained" / "model_card.json").read_text())
    assert card["weights"]["inherited_from"] == str(found / "weights.pt")
    told = prints(["export", str(found / "retrained"), "--no-measure", "--images", "8"], capsys)
    assert "compared with PyTorch on 8 held-out images of digits" in told
    assert {p.name for p in (found / "retrained" / "exported").iterdir()} == {
        "model.onnx", "weights.pt", "architecture.json", "model_card.json", "README.md", "export.json",
    }  # fmt: skip


def test_show(found: Path, capsys: Any) -> None:
    told = prints(["show", str(found), "--against", "mobilenet_v2"], capsys)
    assert "stage1_layer1" in told
    assert "share" in told.splitlines()[0]
    assert "k3_e6" in told
    assert "7,119,848 parameters" in prints(["show", "proxyless_gpu"], capsys)


def test_report(found: Path, capsys: Any) -> None:
    told = prints(["report", str(found.parent)], capsys)
    assert told.strip() == f"report: {found.parent / 'report' / 'report.html'}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("retrain {tmp}/nothing.json", "cannot read architecture"),
        ("retrain proxyless_gpus", "unknown network 'proxyless_gpus'; did you mean 'proxyless_gpu'?"),
        ("retrain proxyless_gpu --inherit", "--inherit needs a file of weights: proxyless_gpu is a name"),
        ("retrain proxyless_gpu data=mnist", "unknown data set 'mnist'"),
        ("retrain {found} epoch=3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("retrain {found} --inherit {tmp}/none.pt", "there is no file of weights"),
        ("export {tmp}", "cannot read architecture"),
        ("export proxyless_gpu", "proxyless_gpu is neither an architecture file nor a folder"),
        ("export {found} --format onnxx", "unknown format 'onnxx'; did you mean 'onnx'?"),
        ("export {found} --images 0", "--images must be a whole number from 1 to 1000000, got 0"),
        ("show {found} --table {tmp}/none.yml", "cannot read latency table"),
        ("report {tmp}/nowhere", "there is no folder"),
        ("report {tmp}", "holds neither searches nor retrained networks"),
    ],
)
def test_bad_input(
    words: str, message: str, found: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before = sorted(found.rglob("*"))
    line = fails([word.format(tmp=empty, found=found) for word in words.split()], capsys)
    assert message in line
    assert sorted(found.rglob("*")) == before
    assert list(empty.iterdir()) == []


def test_weights_of_another_architecture(found: Path, capsys: Any) -> None:
    content = json.loads((found / "architecture.json").read_text())
    content["choices"]["stage1_layer1"] = "k3_e6"
    counts = {"parameters": None, "multiply_adds": None}
    (found / "architecture.json").write_text(json.dumps({**content, **counts}))
    line = fails(["export", str(found), "--no-measure"], capsys)
    assert "are weights of another architecture" in line
    assert not (found / "exported").exists()
    content["choices"]["stage1_layer1"] = "k9_e9"
    (found / "architecture.json").write_text(json.dumps(content))
    assert "unknown candidate 'k9_e9'" in fails(["show", str(found)], capsys)


def test_a_disk_that_is_full_leaves_earlier_files_alone(found: Path, capsys: Any) -> None:
    prints(["export", str(found), "--no-measure", "--images", "2", "--format", "state_dict"], capsys)
    before = {path: path.read_bytes() for path in (found / "exported").iterdir()}
    with largest_file(20_000), pytest.raises(SystemExit) as ended:
        main(["export", str(found), "--no-measure", "--images", "3", "--format", "state_dict"])
    assert ended.value.code == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("nni-proxyless export: error: cannot write")
    assert line.endswith("File too large; what was there before is untouched")
    assert {path: path.read_bytes() for path in (found / "exported").iterdir()} == before
