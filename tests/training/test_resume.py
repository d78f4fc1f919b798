"""Checkpoints and weights that are damaged, foreign or hostile: nothing in them runs, and they are set aside."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import InputError, RunError
from nni_proxyless.files import results_folder
from nni_proxyless.files.resources import cache_folder
from nni_proxyless.files.writing import write_yaml
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.torch_file import read_torch_file
from nni_proxyless.network.weights import read_weights
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.search.shared_weights import decode_finalists
from nni_proxyless.training.resume import SafeCheckpoints, is_interrupted, restoring, usable
from tests.helpers import read_csv, table_of

SPACE: dict[str, Any] = {
    "schema": "nni-proxyless/space@1", "name": "minute", "input": {"channels": 1, "size": 8},
    "stem": {"width": 4, "stride": 2}, "first_block": {"width": 4}, "stages": [{"width": 8, "depth": 1, "stride": 2}],
    "candidates": {"kernels": [3, 5], "expansions": [1], "skip": False}, "head": {"width": 8}, "classes": 10,
}  # fmt: skip


class Hostile:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a search of one epoch of warm-up and one more, and a retraining of one epoch, both finished."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "space.yml").write_text(yaml.safe_dump(SPACE))
    table_of(SpaceSpec.from_dict(SPACE)).save(folder / "table.yml")
    content = {
        "space": "space.yml", "batch_size": 128, "epochs": 2, "warmup_epochs": 1, "bn_batches": 0, "threads": 1,
        "finalists": 1, "share_warmup": False, "target": "device", "targets": {"device": {"table": "table.yml"}},
    }  # fmt: skip
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))
    run_search(prepare(Recipe.load(folder / "recipe.yml")), folder / "search")
    run_retraining(prepare_retraining(retrain_recipe(folder)), folder / "retrain")
    return folder


@pytest.fixture
def folder(begun: Path, tmp_path: Path) -> Path:
    for name in ("search", "retrain"):
        shutil.copytree(begun / name, tmp_path / name)
    return tmp_path


def retrain_recipe(folder: Path) -> RetrainRecipe:
    settings = {"epochs": 1, "warmup_epochs": 0, "batch_size": 256, "threads": 1}
    return RetrainRecipe.for_architecture(str(folder / "search"), settings, None)


def go_on(begun: Path, folder: Path, kind: str) -> None:
    """Run the command of the finished search or retraining again, in a copy of its folder."""
    if kind == "search":
        run_search(prepare(Recipe.load(begun / "recipe.yml")), folder / kind)
    else:
        run_retraining(prepare_retraining(retrain_recipe(begun)), folder / kind)


def add_code(path: Path, mark: Path) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({**content, "more": Hostile(mark)}, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one bit of a weight, which `torch.load` does not notice."""
    content = bytearray(path.read_bytes())
    weights = max(torch.load(path, weights_only=True)["state_dict"].values(), key=torch.numel)
    place = bytes(content).index(weights.detach().numpy().tobytes()[:64])
    content[place] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File that hostile code makes, where `torch.load` executes code by default, as before PyTorch 2.6."""
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **settings: load(*args, **{"weights_only": False, **settings}))
    torch.save(Hostile(tmp_path / "control"), tmp_path / "control.pt")
    torch.load(tmp_path / "control.pt")
    assert (tmp_path / "control").is_file()  # the code works
    return tmp_path / "mark"


@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_a_checkpoint_with_code_is_not_executed(
    kind: str, begun: Path, folder: Path, mark: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_code(folder / kind / "checkpoint.ckpt", mark)
    with caplog.at_level("WARNING", logger="nni_proxyless"):
        go_on(begun, folder, kind)
    assert not mark.exists()
    assert "checkpoint.ckpt.damaged" in caplog.text


def test_code_in_weights_and_checkpoints_that_are_read_is_not_executed(
    begun: Path, folder: Path, mark: Path, tmp_path: Path
) -> None:
    add_code(folder / "search" / "weights.pt", mark)
    add_code(folder / "search" / "checkpoint.ckpt", mark)
    architecture = Architecture.load(folder / "search" / "architecture.json")
    table = table_of(SpaceSpec.from_dict(SPACE))
    inherit = RetrainRecipe.for_architecture(
        str(folder / "search"), {"inherit": str(folder / "search" / "weights.pt")}, None
    )
    readers: list[Callable[[], Any]] = [
        lambda: read_weights(folder / "search" / "weights.pt"),
        lambda: architecture.build(pretrained=folder / "search" / "weights.pt"),
        lambda: prepare_retraining(inherit),
        lambda: SearchCheckpoint.load(folder / "search"),
        lambda: decode_finalists(folder / "search", {"device": table}, 1.0, 2),
        lambda: SafeCheckpoints().load_checkpoint(folder / "search" / "checkpoint.ckpt"),
    ]
    for read in readers:
        with pytest.raises(InputError):
            read()
    assert not mark.exists()


def test_a_shared_warm_up_that_is_hostile_or_damaged_is_trained_anew(
    begun: Path, mark: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe.load(begun / "recipe.yml", {"share_warmup": True})
    run_search(prepare(recipe), tmp_path / "first")
    (warmup,) = (cache_folder() / "warmups").glob("*.ckpt")
    for number, spoil in enumerate((lambda path: add_code(path, mark), truncate), start=1):
        spoil(warmup)
        (warmup.parent / f".{warmup.name}.abcd_012").touch()  # left by a killed process
        caplog.clear()
        with caplog.at_level("INFO", logger="nni_proxyless"):
            run_search(prepare(recipe), tmp_path / f"again{number}")
        assert "the warm-up starts over" in caplog.text
        assert [row["epoch"] for row in read_csv(tmp_path / f"again{number}" / "history.csv")] == ["1", "2"]
        read_torch_file(warmup)
    assert not mark.exists()
    names = sorted(path.name for path in warmup.parent.iterdir() if path.suffix != ".lock")
    assert names == [warmup.name, f"{warmup.name}.damaged", f"{warmup.name}.damaged-2"]


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), RuntimeError),
        (MemoryError(), MemoryError),
        (OSError(errno.EIO, "Input/output error"), InputError),
        (OSError(errno.ESTALE, "Stale file handle"), InputError),
    ],
)
def test_a_checkpoint_is_kept_if_memory_or_the_disk_fails(
    fault: Exception, raised: type[Exception], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise fault

    path = folder / "search" / "checkpoint.ckpt"
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(raised):
        usable(path, read_torch_file, "the search")
    assert path.is_file()
    assert not path.with_name("checkpoint.ckpt.damaged").exists()


@pytest.mark.parametrize("kind", ["search", "retrain"])
@pytest.mark.parametrize(
    "spoil", [truncate, flip, lambda path: path.write_bytes(b""), lambda path: path.write_text("x")]
)
def test_a_damaged_checkpoint_is_named_and_set_aside_and_the_run_begins_anew(
    spoil: Callable[[Path], None], kind: str, begun: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / kind / "checkpoint.ckpt"
    spoil(path)
    damaged = path.read_bytes()
    with caplog.at_level("WARNING", logger="nni_proxyless"):
        go_on(begun, folder, kind)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.startswith(f"{path} is ")
    assert told.endswith(
        f"it is kept as checkpoint.ckpt.damaged, and the {'search' if kind == 'search' else 'retraining'} starts over"
    )
    assert path.with_name("checkpoint.ckpt.damaged").read_bytes() == damaged
    for name in ("weights.pt", "architecture.json"):
        assert (folder / kind / name).read_bytes() == (begun / kind / name).read_bytes()
    caplog.clear()
    go_on(begun, folder, kind)  # the second start has nothing to say
    assert "damaged" not in caplog.text


def test_checkpoints_of_something_else_are_set_aside(
    begun: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copyfile(begun / "search" / "checkpoint.ckpt", folder / "retrain" / "checkpoint.ckpt")
    shutil.copyfile(begun / "retrain" / "checkpoint.ckpt", folder / "search" / "checkpoint.ckpt")
    for kind in ("search", "retrain"):
        with caplog.at_level("WARNING", logger="nni_proxyless"):
            go_on(begun, folder, kind)
        assert f"{folder / kind / 'checkpoint.ckpt'} is a checkpoint of something else: it lacks the" in caplog.text
    content = torch.load(begun / "search" / "checkpoint.ckpt", weights_only=True)
    content["nni_proxyless"]["space"]["head"]["width"] = 16
    torch.save(content, folder / "search" / "checkpoint.ckpt")
    with caplog.at_level("WARNING", logger="nni_proxyless"):
        go_on(begun, folder, "search")
    assert "is the checkpoint of a search in another space" in caplog.text


def test_a_state_that_cannot_be_restored_is_set_aside_and_the_same_command_begins_anew(
    begun: Path, folder: Path
) -> None:
    path = folder / "search" / "checkpoint.ckpt"
    content = torch.load(path, weights_only=True)
    name = max(content["state_dict"], key=lambda key: content["state_dict"][key].numel())
    content["state_dict"][name] = torch.zeros(3)
    torch.save(content, path)
    with pytest.raises(RunError) as failed:
        go_on(begun, folder, "search")
    assert str(failed.value).startswith(f"{path} does not fit this run (")
    assert str(failed.value).endswith("it is kept as checkpoint.ckpt.damaged, and the same command starts over")
    assert len(str(failed.value)) < 500
    go_on(begun, folder, "search")
    assert (folder / "search" / "weights.pt").read_bytes() == (begun / "search" / "weights.pt").read_bytes()


def test_errors_that_are_not_the_checkpoints_leave_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.ckpt"
    path.touch()
    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        InputError("x"),
        OSError(),
    ):
        with pytest.raises(type(error)), restoring(path, lambda: False):
            raise error
    with pytest.raises(ZeroDivisionError), restoring(path, lambda: True):
        raise ZeroDivisionError
    assert path.exists()


@pytest.mark.parametrize("name", ["latency_table.yml", "weights.pt"])
def test_other_damaged_files_that_a_run_resumes_from_are_noticed(
    name: str, begun: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind = "search" if name == "latency_table.yml" else "retrain"
    (folder / kind / name).write_text("operators: [")
    with caplog.at_level("WARNING", logger="nni_proxyless"):
        go_on(begun, folder, kind)
    assert name in caplog.text
    assert "starts over" in caplog.text
    assert (folder / kind / name).read_bytes() == (begun / kind / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "checkpoint.ckpt").unlink(), "because they lack checkpoint.ckpt"),
        (lambda folder: (folder / "latency_table.yml").unlink(), "because they lack latency_table.yml"),
        (lambda folder: (folder / "recipe.yml").unlink(), "because they lack recipe.yml"),
        (lambda folder: (folder / "recipe.yml").write_text("epochs: ["), "cannot be parsed"),
        (lambda folder: write_yaml(folder / "recipe.yml", {"seed": 3}), "because they are of another recipe"),
        (lambda folder: None, None),
    ],
)
def test_why_finished_results_are_replaced_is_said(
    change: Callable[[Path], object], said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe()
    write_yaml(tmp_path / "recipe.yml", recipe.to_dict(absolute=True))
    for name in ("checkpoint.ckpt", "latency_table.yml", "architecture.json"):
        (tmp_path / name).touch()
    change(tmp_path)
    caplog.set_level("INFO", "nni_proxyless")
    assert is_interrupted(recipe, tmp_path, results_folder.NEEDED_BY_SEARCH) is (said is None)
    assert (said or "") in caplog.text
    assert ("are replaced when the first epoch ends" in caplog.text) is (said is not None)
