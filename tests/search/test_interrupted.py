"""Ctrl-C ends a search or a retraining with exit code 130, without a result, and the same command goes on."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback

from nni_proxyless import ProxylessNAS
from tests import toy
from tests.helpers import read_csv, wait_until
from tests.warm import WarmProcess, run_warm


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_ctrl_c_ends_the_command_and_the_same_command_goes_on(kind: str, recipe_file: Path) -> None:
    output = recipe_file.parent / "out"
    words = ["nni-proxyless", kind]
    if kind == "search":
        words += [str(recipe_file), "share_warmup=false"]
    else:
        space = recipe_file.parent / "tiny.yml"
        words += ["mobilenet_v2_0.5", f"space={space}", "data=digits", "warmup_epochs=1", "threads=1"]
    words += ["epochs=20", "--output", str(output)]
    process = WarmProcess(words, recipe_file.parent)
    wait_until(lambda: (output / "checkpoint.ckpt").is_file(), seconds=120)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.stderr
    told = process.stderr
    before = len(read_csv(output / "history.csv"))
    assert 1 <= before < 20
    assert not (output / ("architecture.json" if kind == "search" else "model_card.json")).exists()
    last = told.strip().splitlines()[-1]
    assert last.startswith(f"nni-proxyless {kind}: interrupted; go on from the last finished epoch with: nni-proxyless")
    again = shlex.split(last.split(" with: ")[1])
    done = run_warm(again, recipe_file.parent)
    assert done.returncode == 0, done.stderr
    assert "going on where" in done.stderr
    assert [row["epoch"] for row in read_csv(output / "history.csv")] == [str(n) for n in range(1, 21)]


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
