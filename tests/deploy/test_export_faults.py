"""Exports onto a full disk, into places that cannot be written, and over their own input: refused, nothing changed."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import pytest

from nni_proxyless import Architecture
from nni_proxyless.deploy import export as exporting
from nni_proxyless.deploy.export import FILES, Exported, Images, export
from nni_proxyless.errors import InputError, RunError
from nni_proxyless.files.claims import LOCK
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import save_weights
from tests.warm import run_warm

# The limit of the file size acts like a full disk: a file that grows beyond it cannot be written to.
FULL = """
import json, resource, sys
from dataclasses import replace
from pathlib import Path
import onnxruntime.quantization
from nni_proxyless import Architecture
from nni_proxyless.deploy.export import FILES, Images, export
architecture = Architecture.load("architecture.json")
images = replace(Images.random(architecture.require_spec().input_shape, 2), of_the_data=True)
sys.dont_write_bytecode = True  # Python would truncate it
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
said = {}
for name in FILES:
    try:
        export(architecture, Path("weights.pt"), Path("out"), (name,), images, measure=False, accept_loss=True)
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture
def network(tiny_spec: SpaceSpec, tmp_path: Path) -> Architecture:
    """A network whose weights are in the file `weights.pt`."""
    architecture = random_architecture(tiny_spec, random.Random(0))
    save_weights(architecture.build(), tmp_path / "weights.pt")
    return architecture


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_full_disk_ends_no_process_and_changes_nothing(network: Architecture, tmp_path: Path) -> None:
    network.save(tmp_path / "architecture.json")
    for file in FILES.values():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / file).write_text("earlier")
    before = content(tmp_path)
    done = run_warm(["python", "-c", FULL], tmp_path, dict(os.environ), 300)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == {
        name: ["WriteError", "cannot write into out: File too large; what was there before is untouched"]
        for name in FILES
    }
    assert content(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES.values())


def images(network: Architecture) -> Images:
    return Images.random(network.require_spec().input_shape, 2)


def test_places_that_cannot_be_written(network: Architecture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "model.onnx").mkdir(parents=True)
    (tmp_path / "taken_too" / "export.json").mkdir(parents=True)
    weights = tmp_path / "weights.pt"
    before = sorted(tmp_path.rglob("*"))
    for out, message in {
        tmp_path / "file": r"cannot export into .*/file: .*/file is not a folder; choose another folder with --out",
        tmp_path / "file" / "deep" / "er": r"cannot export into .*: .*/file is not a folder",
        tmp_path / "taken": r"cannot write .*/taken/model.onnx, which is a folder",
        tmp_path / "taken_too": r"cannot write .*/taken_too/export.json, which is a folder",
        tmp_path / ("n" * 300): r"cannot write into .*: File name too long; choose another",
        Path("/proc/none"): r"cannot (export|write) into /proc/none: .*; choose another",
    }.items():
        with pytest.raises(InputError, match=message):
            export(network, weights, out, ("onnx",), images(network), measure=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_permission_to_write(
    network: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    if os.geteuid() == 0:  # root may write everywhere

        def refuse(**_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match=r"/out/deeper: nothing can be written into .*/out: Permission denied"):
        export(network, tmp_path / "weights.pt", tmp_path / "out" / "deeper", ("onnx",), images(network))


def test_an_export_never_replaces_the_weights_that_it_reads(network: Architecture, tmp_path: Path) -> None:
    before = content(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(InputError, match=r"the export would replace .*/weights.pt, which it exports"):
            export(network, tmp_path / "weights.pt", out, ("onnx", "state_dict"), images(network), measure=False)
        assert content(tmp_path) == before
    export(network, tmp_path / "weights.pt", tmp_path, ("onnx",), images(network), measure=False)
    assert content(tmp_path)["weights.pt"] == before["weights.pt"]


def test_a_new_folder_is_removed_if_nothing_was_written(
    network: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RunError("differs")

    monkeypatch.setattr(exporting, "_checked", fail)
    with pytest.raises(RunError, match="differs"):
        export(network, tmp_path / "weights.pt", tmp_path / "a" / "b", ("state_dict",), images(network), measure=False)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


def test_a_folder_that_another_process_uses_is_refused(
    network: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, weights = tmp_path / "out", tmp_path / "weights.pt"
    out.mkdir()
    (out / "export.json").write_text("earlier")
    lock = {"host": "node7", "boot": "another", "process": 12, "started": 1.0}
    (out / LOCK).write_text(json.dumps(lock))
    before = content(tmp_path)
    with pytest.raises(InputError, match=rf"^the folder {out} is in use by process 12 on the machine node7"):
        export(network, weights, out, ("state_dict",), images(network), measure=False)
    assert content(tmp_path) == before
    (out / LOCK).unlink()

    def measured(result: Exported, *_: object) -> Exported:
        assert json.loads((out / LOCK).read_text())["process"] == os.getpid()  # until the last file is written
        return result

    monkeypatch.setattr(exporting, "_measured", measured)
    export(network, weights, out, ("state_dict",), images(network))
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "architecture.json",
        "export.json",
        "model_card.json",
        "weights.pt",
    ]


def test_what_a_killed_export_left_is_removed(network: Architecture, tmp_path: Path) -> None:
    (tmp_path / "out" / ".export-abandoned" / "x").mkdir(parents=True)
    export(network, tmp_path / "weights.pt", tmp_path / "out", ("state_dict",), images(network), measure=False)
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert sorted(names) == ["README.md", "architecture.json", "export.json", "model_card.json", "weights.pt"]


def test_results_of_earlier_files_do_not_stay_beside_new_ones(
    network: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are in their place when the measurement fails, with what is known about them by then."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text("earlier")

    def fail(*_: object) -> None:
        raise RunError("unplugged")

    monkeypatch.setattr(exporting, "_measured", fail)
    with pytest.raises(RunError, match="unplugged"):
        export(network, tmp_path / "weights.pt", out, ("state_dict",), images(network))
    assert '"measured_latency_ms": null' in (out / "export.json").read_text()
