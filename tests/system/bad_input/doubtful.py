"""Bad input beside a doubtful table, whose warning must not be a second line; and results that would be lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from .case import Case, keys, settings, with_key
from .folder import ARCHITECTURE, FITTED, RECIPE, TABLE

DOUBTFUL: dict[str, Any] = with_key(TABLE, "calibration.mean_relative_error", 0.1)
_FILE = {"doubtful.yml": DOUBTFUL}
_BESIDE = {"found/latency_table.yml": DOUBTFUL}
_FITTED = {"doubtful.yml": with_key(FITTED, "calibration.mean_relative_error", 0.3)}
_TARGET = {**_FILE, "recipe.yml": {**RECIPE, "targets": {"phone": {"table": "doubtful.yml"}}}}

_TABLES = [
    Case(command, received, says, files)
    for files, rows in (
        (
            _BESIDE,
            (
                ("export found --recipe nope.yml", "nope.yml", "there is no such file"),
                ("export found --weights nope.pt --out out", "nope.pt", "give a weights.pt"),
                ("export found --weights recipe.yml --out out", "recipe.yml", "give a weights.pt"),
                ("export found --format onxn", "'onxn'", "did you mean 'onnx'?"),
                ("export found --out notes.txt", "notes.txt", "is not a folder"),
                ("show found --against nope.json", "nope.json", "No such file"),
                ("show found --against resnet", "'resnet'", "proxyless_mobile"),
            ),
        ),
        (
            _FILE,
            (
                ("latency compare doubtful.yml nope.yml", "nope.yml", "No such file"),
                ("latency compare doubtful.yml space.yml", "space.yml", "nni-proxyless/latency-table@1"),
                ("latency compare doubtful.yml fitted.yml", "no operator in common", "different spaces"),
                ("latency predict doubtful.yml --space space.yml --architectures nope.csv", "nope.csv", "No such file"),
                ("latency predict doubtful.yml --space space.yml --architectures counts.csv", "lack", "layer"),
                ("latency predict doubtful.yml --space nope.yml --architectures networks.csv", "nope.yml", "No such"),
                ("latency suggest --basis doubtful.yml --out new.csv", "made up", "give its --space"),
                ("latency fit --measurements measured.csv --basis doubtful.yml --out new.yml", "made up", "--space"),
                ("show found --table doubtful.yml --against nope.json", "nope.json", "No such file"),
                ("decode found --table doubtful.yml --budget-ms 0.001", "0.001 ms", "the fastest takes"),
                ("decode found --table doubtful.yml nope.yml", "nope.yml", "No such file"),
                ("decode notes.txt --table doubtful.yml", "notes.txt", "give the checkpoint.ckpt of a search"),
                ("export found --table doubtful.yml nope.yml --out out", "nope.yml", "No such file"),
                ("export found --table doubtful.yml --weights nope.pt --out out", "nope.pt", "give a weights.pt"),
            ),
        ),
        (
            _FITTED,
            (
                ("latency predict doubtful.yml --architectures networks.csv --std", "standard dev", "latency fit"),
                ("latency suggest --basis doubtful.yml --networks 1000 --out new.csv", "1000", "different networks"),
            ),
        ),
        (
            _TARGET,
            (
                ("search recipe.yml --output out strategy=no.such:Class objective=add_linear", "'no'", "no module"),
                ("search recipe.yml --output out strategy=os:path objective=add_linear", "os:path", "OneShotStrategy"),
                ("search recipe.yml --output out strategy=darts objective=add_linear strategy_args='{tempo: 3}'",
                 "tempo", "does not take"),
                ("search recipe.yml --output out budget_fraction=0.01", "ms", "the fastest takes"),
                ("search recipe.yml --output out precision=16-mixed accelerator=cpu", "16-mixed", "use 32-true"),
                ("search recipe.yml --output out batch_size=100000", "100000", "choose a smaller one"),
                ("search recipe.yml --output out data=nothing", "'nothing'", "unknown data set"),
                ("search recipe.yml --output out space=other.yml", "lacks", "Measure the table again"),
            ),
        ),
    )
    for command, received, says in rows
]  # fmt: skip


def _gone(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def _link_to_nothing(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("nowhere")


def _copied(path: Path) -> None:
    """The results of `found`, as those of a retraining, without what a retraining would go on from."""
    path.mkdir()
    for name in ("architecture.json", "weights.pt"):
        shutil.copy(path.parent / "found" / name, path / name)
    (path / "model_card.json").write_text("{}")


_OVERWRITE = "replace them with --overwrite"
_SEARCH, _RETRAIN = "search recipe.yml --output found", "retrain other.json --recipe retrain.yml --output"
_LOST = [
    Case(f"{_SEARCH} seed=5", "different: seed", _OVERWRITE),
    Case(f"{_SEARCH} epochs=8", "different: epochs", _OVERWRITE),
    Case(_SEARCH, "recipe.yml", _OVERWRITE, {"found/recipe.yml": "epochs: [\n"}),
    Case(_SEARCH, "recipe.yml", _OVERWRITE, {"found/recipe.yml": b"\xff\x00\x01"}),
    Case(_SEARCH, "another kind of recipe", _OVERWRITE, {"found/recipe.yml": {"epoch": 3}}),
    Case(_SEARCH, "without a recipe.yml", _OVERWRITE, {"found/recipe.yml": _gone}),
    Case(_SEARCH, "checkpoint.ckpt is missing", _OVERWRITE, {"found/checkpoint.ckpt": _gone}),
    Case(_SEARCH, "latency_table.yml is missing", _OVERWRITE, {"found/latency_table.yml": _gone}),
    Case(_SEARCH, "checkpoint.ckpt", "move it elsewhere", {"found/checkpoint.ckpt": _folder}),
    Case(f"{_SEARCH} --overwrite", "checkpoint.ckpt", "move it elsewhere", {"found/checkpoint.ckpt": _folder}),
    Case(_SEARCH, "checkpoint.ckpt", "move it elsewhere", {"found/checkpoint.ckpt": _link_to_nothing}),
    Case("search recipe.yml --output new", "new/weights.pt", "move it elsewhere", {"new/weights.pt": _folder}),
    Case("search recipe.yml --output new", "recipe.yml", "move it elsewhere", {"new/recipe.yml": _link_to_nothing}),
    Case(f"{_RETRAIN} found", "another kind of recipe", _OVERWRITE),
    Case(f"{_RETRAIN} done", "without a recipe.yml", _OVERWRITE, {"done": _copied}),
    Case(f"{_RETRAIN} new", "checkpoint.ckpt", "move it elsewhere", {"new/checkpoint.ckpt": _folder}),
    Case("run config.yml --results found", "different: ", "replace them with --overwrite",
         {"found/recipe.yml": {**RECIPE, "epochs": 9, "space": "../space.yml"}}),
]  # fmt: skip

_VALUES = [
    *keys(
        "latency show bad.yml",
        "bad.yml",
        TABLE,
        [
            ("date", "yesterday", "'yesterday'", "date must be a date such as 2026-01-31"),
            ("date", "2026-13-01", "'2026-13-01'", "date must be a date such as"),
            ("date", 7, "7", "date must be a date such as"),
            ("dtype", "complex", "'complex'", "dtype must be a number format such as float32"),
            ("dtype", "complex64", "'complex64'", "dtype must be a number format such as float32"),
            ("dtype", "", "''", "dtype must be a number format such as float32"),
            ("space", "../../x", "'../../x'", "space must be a name of at most 100"),
            ("space", "a\nb", "'a\\nb'", "space must be a name of at most 100"),
            ("calibration.networks", 10**12, "1000000000000", "calibration.networks must be a whole number from 0 to"),
            ("operators.0.runs", 10**18, "1000000000000000000", "runs must be a whole number from 1 to"),
            ("operators.0.kernel", 10**9, "1000000000", "must be a whole number from 1 to 10000000"),
            ("operators.0.latency_ms", 1e12, "1000000000000.0", "latency_ms must be a number up to 1,000,000,000"),
        ],
    ),
    *keys(
        "show bad.json",
        "bad.json",
        ARCHITECTURE,
        [
            ("space.name", "../../x", "'../../x'", "the name of 'space' must be a name"),
            ("target", "../../x", "'../../x'", "'target' must be a name"),
            ("target", "a\x1b[31m", "'a\\x1b[31m'", "'target' must be a name"),
            ("target", "x" * 5000, "xxx", "'target' must be a name of at most 100"),
            ("parameters", 5, "'parameters' is 5", "changed by hand"),
            ("parameters", ARCHITECTURE["parameters"] + 1, "'parameters' is", "changed by hand"),
            ("parameters", "many", "'many'", "changed by hand"),
            ("parameters", float(ARCHITECTURE["parameters"]), ".0, but", "changed by hand"),
            ("multiply_adds", 0, "'multiply_adds' is 0", "changed by hand"),
            ("choices.stage1_layer0", "skip", "unknown ['stage1_layer0']; it has", "3 layers"),
        ],
    ),
    *settings(
        "",
        [
            ("search recipe.yml --output out gradient_clip_val=1e-320", "1e-320", "from 1e-30, because smaller ones"),
            ("search recipe.yml --output out learning_rate=1e-300", "1e-300", "from 1e-30, because smaller ones"),
            ("search recipe.yml --output out epochs=4 sharpen_epochs=90", "got 90", "architecture, which is 2"),
            ("search recipe.yml --output out sharpen_epochs=5", "got 5", "train the architecture, which is 4"),
            ("search recipe.yml --output out 'strategy=\":\"' objective=add_linear", "':'", "package.module:Class"),
            ("search recipe.yml --output out strategy=: objective=add_linear", "'strategy=:'", "needs quotes"),
            ("search recipe.yml --output out strategy=random objective=add_linear strategy_args='{best_of: 1e400}'",
             "'1e400'", "best_of must be a whole number from 1"),
            ("show mobilenet_v2_0.0000001", "1e-07", "from 0.01 to 100"),
            ("decode /dev/zero", "/dev/zero", "it is a device"),
            ("report /nope", "/nope", "give a folder of results such as"),
        ],
    ),
    Case("run bad.yml", "got 1000000000", "'trialConcurrency' must be a whole number from 1 to",
         {"bad.yml": yaml.safe_dump({"trialCommand": "nni-proxyless trial --recipe recipe.yml",
                                     "trialCodeDirectory": ".", "trialConcurrency": 10**9,
                                     "searchSpace": {"seed": {"_type": "choice", "_value": [0]}}})}),
]  # fmt: skip

CASES = [*_TABLES, *_LOST, *_VALUES]
