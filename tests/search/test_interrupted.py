"""Signals end a search or a retraining with their own exit codes, without a result, and the same command goes on."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback

from nni_proxyless import ProxylessNAS
from nni_proxyless.cli.entry import main
from nni_proxyless.deploy.retrain_epochs import RetrainEpochs
from nni_proxyless.search.epoch_callback import EpochCallback
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.signals import Stopped
from tests import toy
from tests.helpers import read_csv, wait_until
from tests.warm import WarmProcess, run_warm

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def words_of(kind: str, recipe_file: Path, *settings: str) -> list[str]:
    """Return the words of a search or a retraining in the folder `out` beside the recipe."""
    if kind == "search":
        words = [kind, str(recipe_file), "share_warmup=false"]
    else:
        space = recipe_file.parent / "tiny.yml"
        words = [kind, "mobilenet_v2_0.5", f"space={space}", "data=digits", "warmup_epochs=1", "threads=1"]
    return [*words, *settings, "--output", str(recipe_file.parent / "out")]


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    return int(exit_.value.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "number"), [("search", signal.SIGTERM), ("retrain", signal.SIGINT)])
def test_a_signal_ends_the_command_and_the_same_command_goes_on(
    kind: str, number: signal.Signals, recipe_file: Path
) -> None:
    output = recipe_file.parent / "out"
    words = ["nni-proxyless", *words_of(kind, recipe_file, "epochs=20")]
    process = WarmProcess(words, recipe_file.parent)
    wait_until(lambda: (output / "checkpoint.ckpt").is_file(), seconds=120)
    process.send_signal(number)
    assert process.wait(60) == CODES[number], process.stderr
    told = process.stderr
    before = len(read_csv(output / "history.csv"))
    assert 1 <= before < 20
    assert not (output / ("architecture.json" if kind == "search" else "model_card.json")).exists()
    last = told.strip().splitlines()[-1]
    ended = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert last.startswith(f"nni-proxyless {kind}: {ended}; continue from the last finished epoch with: nni-proxyless")
    again = shlex.split(last.split(" with: ")[1])
    done = run_warm(again, recipe_file.parent)
    assert done.returncode == 0, done.stderr
    assert "was interrupted" in done.stderr
    assert [row["epoch"] for row in read_csv(output / "history.csv")] == [str(n) for n in range(1, 21)]
    assert not list(output.glob(".*"))


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Restore the handlers of all signals that a test sends, which pytest or a shell may have changed."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_each_signal_has_its_exit_code_and_the_line_that_goes_on(
    kind: str, number: signal.Signals, recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The signal comes in the second epoch."""

    def send(_self: Any, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 1:
            signal.raise_signal(number)

    callback = EpochCallback if kind == "search" else RetrainEpochs
    with monkeypatch.context() as patch:
        patch.setattr(callback, "on_train_batch_start", send)
        words = words_of(kind, recipe_file, "epochs=4", "warmup_epochs=0")
        assert run(words) == CODES[number]
    last = capsys.readouterr().err.strip().splitlines()[-1]
    ended = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert last == (
        f"nni-proxyless {kind}: {ended}; continue from the last finished epoch with: "
        f"{shlex.join(['nni-proxyless', *words])}"
    )
    output = recipe_file.parent / "out"
    assert [row["epoch"] for row in read_csv(output / "history.csv")] == ["1"]
    assert not (output / "architecture.json").exists()
    assert not list(output.glob(".*"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("_handlers")
def test_a_signal_in_the_first_epoch_leaves_earlier_results_as_they_were(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = recipe_file.parent / "out"
    assert run(words_of("search", recipe_file, "epochs=1", "warmup_epochs=0")) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    monkeypatch.setattr(EpochCallback, "on_train_batch_start", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert run([*words_of("search", recipe_file, "epochs=2", "warmup_epochs=0", "seed=3"), "--overwrite"]) == 143
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("_handlers")
def test_a_signal_ends_a_search_in_python(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning alone would end the process with exit code 0, as if the search had finished."""
    monkeypatch.setattr(EpochCallback, "on_train_batch_start", lambda *_: signal.raise_signal(signal.SIGTERM))
    prepared = prepare(Recipe.load(recipe_file, {"epochs": 1, "warmup_epochs": 0}))
    with pytest.raises(Stopped, match="SIGTERM"):
        run_search(prepared, recipe_file.parent / "out")
    assert not (recipe_file.parent / "out").exists()
    # With a handler of the program's own, too.
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with pytest.raises(SystemExit) as ended:
        run_search(prepared, recipe_file.parent / "out")
    assert ended.value.code == 143
    assert set(heard) == {signal.SIGTERM}


# Lightning sets the first two in every process that has trained, and scikit-learn the others when it is imported.
_OF_LIBRARIES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")


def test_variables_of_other_launchers_are_ignored(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With `LOCAL_RANK=1`, a search took itself for a helper of another process and wrote nothing."""
    launched = {
        "RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "nowhere", "MASTER_PORT": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "x",
        "TORCHELASTIC_RUN_ID": "x", "NNI_PROXYLESS_RANKS_OF": "999999999",
    }  # fmt: skip
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    before = {key: value for key, value in os.environ.items() if key not in _OF_LIBRARIES}
    for kind in ("search", "retrain"):
        assert run(words_of(kind, recipe_file, "epochs=1", "warmup_epochs=0", "--overwrite")) == 0
        told = capsys.readouterr()
        assert "results: " in told.out
        assert "ignoring GROUP_RANK=1, LOCAL_RANK=1, NODE_RANK=1, RANK=3, SLURM_PROCID=3: this process" in told.err
    assert {key: value for key, value in os.environ.items() if key not in _OF_LIBRARIES} == before
    assert json.loads((recipe_file.parent / "out" / "model_card.json").read_text())["cost"]["epochs"] == 1


def test_ctrl_c_in_python_is_passed_on() -> None:
    """Lightning alone would return from `fit` as if the search had finished, and an undecided network be exported."""

    class Presses(Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            raise KeyboardInterrupt

    evaluator = toy.evaluator(4)
    evaluator.trainer.callbacks.append(Presses())
    strategy = ProxylessNAS()
    space = RawFormatModelSpace(toy.Features(), evaluator)
    with pytest.raises(KeyboardInterrupt):
        strategy(space, SequentialExecutionEngine())
