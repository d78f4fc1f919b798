"""A wrong target, space or data folder is reported before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers import REPOSITORY

_CODE = """
import contextlib, io, json, sys
from nni_proxyless.cli.entry import main
found = []
for words in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code
    found.append([code, said.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_wrong_targets_and_folders_are_told_before_torch_is_imported(tmp_path: Path) -> None:
    quickstart = REPOSITORY / "experiments" / "quickstart"
    recipe = yaml.safe_load((quickstart / "recipe.yml").read_text())
    config = yaml.safe_load((quickstart / "config.yml").read_text())
    for name, change in (
        ("target", {"target": "cpu_tensorflow"}),
        ("folder", {"data": "imagefolder", "data_dir": "no"}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yml").write_text(yaml.safe_dump({**recipe, **change}))
        space = {"seed": {"_type": "choice", "_value": [0]}} if name == "target" else config["searchSpace"]
        (tmp_path / name / "config.yml").write_text(yaml.safe_dump({**config, "searchSpace": space}))
    (tmp_path / "flat" / "cat").mkdir(parents=True)
    found = REPOSITORY / "tests" / "recorded" / "quickstart" / "cpu_torch" / "architecture.json"
    shutil.copyfile(found, tmp_path / "architecture.json")
    space = "space=mobilenetv2_cifar"
    cases = [
        ("search quickstart target=cpu_tensorflow", "did you mean 'cpu_torch'?"),
        ("search quickstart targets={cpu_torch:{backend:tensorrt}}", "unknown latency backend 'tensorrt'"),
        ("search quickstart targets={cpu_torch:{backend:torch,dtype:int8}}", "unknown setting 'dtype'"),
        (f"search quickstart targets={{cpu_torch:{{table:{tmp_path}/no.yml}}}}", "No such file"),
        ("search quickstart space=mobilenetv3", "unknown space 'mobilenetv3'"),
        (f"search quickstart space={tmp_path}/no.yml", "No such file"),
        ("search quickstart data=mnist", "unknown data set 'mnist'"),
        (f"search quickstart {space} data=imagefolder", "needs data_dir"),
        (f"search quickstart {space} data=imagefolder data_dir={tmp_path}/no", "does not exist"),
        (f"search quickstart {space} data=imagefolder data_dir={tmp_path}/flat", "no folder 'train'"),
        (f"search quickstart {space} data=cifar10 data_dir={tmp_path}/flat/cat", "is empty"),
        (f"search quickstart data=arrays data_dir={tmp_path}/no.npz", "is not a file"),
        (f"search quickstart data=arrays data_dir={tmp_path}/no.npz --dry-run", "is not a file"),
        (f"retrain {tmp_path} data=imagefolder data_dir={tmp_path}/no", "does not exist"),
        (f"run {tmp_path}/target/config.yml", "unknown target 'cpu_tensorflow'"),
        (f"run {tmp_path}/folder/config.yml", "does not exist"),
        (f"init --data {tmp_path}/no --budget-ms 5 --out {tmp_path}/r.yml", "neither a folder of images nor"),
    ]
    words = [line.split() for line, _ in cases]
    for case in words:
        case[:] = [word.replace(":", ": ") if word.startswith("targets=") else word for word in case]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CODE, json.dumps(words)],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    for (line, message), (code, said, torch) in zip(cases, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert (code, torch) == (2, False), (line, said)
        assert message in said, line
        assert said.count("\n") == 1, line
