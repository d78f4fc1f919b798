"""The examples in docstrings run and print what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests import toy
from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "nni_proxyless"
WITH_EXAMPLES = sorted(
    str(path.relative_to(REPOSITORY).with_suffix("")).replace("/", ".")
    for path in PACKAGE.rglob("*.py")
    if re.search(r"^\s+>>> ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Names that examples call given: a model space, an evaluator and a table. NNI writes into a temporary folder."""
    from nni.nas.evaluator.pytorch import Classification, DataLoader
    from nni.nas.experiment import experiment

    started: list[Callable[[], None]] = []
    at_exit = SimpleNamespace(register=started.append, unregister=lambda stop: None)
    monkeypatch.setattr(experiment, "atexit", at_exit)
    monkeypatch.setenv("HOME", str(tmp_path))
    loaders = [DataLoader(toy.feature_data(0, 128), batch_size=32, shuffle=True) for _ in range(2)]
    evaluator = Classification(
        train_dataloaders=loaders[0], val_dataloaders=loaders[1], num_classes=2, max_epochs=2, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False,
    )  # fmt: skip
    yield {"space": toy.Features(), "table": toy.table(), "evaluator": evaluator, "torch": torch}
    for stop in started:
        stop()


@pytest.mark.parametrize("module", WITH_EXAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_examples(module: str, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = importlib.import_module(module)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(found, extraglobs=given):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0


def test_what_users_call_has_an_example() -> None:
    import nni_proxyless
    from nni_proxyless.decoding import distribution, knapsack
    from nni_proxyless.nni_spaces import space_latency

    described = [getattr(nni_proxyless, name) for name in nni_proxyless.__all__ if name[0] != "_"]
    described += [knapsack.most_likely_within, knapsack.likeliest_within, knapsack.front]
    described += [distribution.ArchitectureDistribution, space_latency.measure_model_space]
    for thing in described:
        members = vars(thing).values() if inspect.isclass(thing) else ()
        texts = [inspect.getdoc(each) or "" for each in (thing, *members)]
        assert any(">>> " in text for text in texts), thing
