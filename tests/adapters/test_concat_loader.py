"""NNI's loader for ENAS on current versions of pytorch-lightning, and NNI's own strategies on every version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from nni.nas import strategy as nni_strategy
from nni.nas.evaluator.pytorch import Classification
from nni.nas.evaluator.pytorch import DataLoader as NniDataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch._dataloader import ConcatLoader
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import DataLoader, TensorDataset

from nni_proxyless.adapters.versions import release

current = pytest.mark.skipif(release(pl.__version__) < (2, 1), reason="pytorch-lightning 2.0 has the loader NNI knows")


def loaders() -> dict[str, Any]:
    return {
        "a": [DataLoader(range(10), batch_size=4), DataLoader(range(20), batch_size=6)],  # type: ignore[arg-type]
        "b": DataLoader(range(100, 120), batch_size=5),  # type: ignore[arg-type]
    }


def test_loaders_follow_each_other() -> None:
    """Every version yields what NNI's own tests expect: the batch, its index and that of its loader."""
    loader = ConcatLoader(loaders())
    iter(loader)
    assert len(loader) == 3 + 4 + 4
    found = [(batch.tolist(), index, which) for batch, index, which in loader]
    expected = [
        (list(range(start, min(start + size, stop))), (start - begin) // size, which)
        for which, (begin, stop, size) in enumerate([(0, 10, 4), (0, 20, 6), (100, 120, 5)])
        for start in range(begin, stop, size)
    ]
    assert found == expected
    assert [index for _, index, _ in loader] == [index for _, index, _ in expected]  # once more


@current
@pytest.mark.parametrize("limits", [[2, 0, 1], [float("inf"), 1, 4]])
def test_a_trainer_gets_the_whole_triple_as_the_batch(limits: list[float]) -> None:
    loader = ConcatLoader(loaders())
    loader.limits = limits
    numbers = [
        (index, which)
        for which, (length, most) in enumerate(zip((3, 4, 4), limits, strict=True))
        for index in range(int(min(length, most)))
    ]
    found = list(loader)
    assert [(index, which) for (_, index, which), _, _ in found] == numbers
    assert [(position, zero) for _, position, zero in found] == [(i, 0) for i in range(len(numbers))]
    assert len(loader) == len(numbers)


@current
def test_a_loader_of_unknown_length() -> None:
    loader = ConcatLoader({"a": DataLoader(range(4)), "b": (i for i in range(3))})  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        len(loader)
    assert len(list(loader)) == 7


@pytest.mark.parametrize("name", ["DARTS", "GumbelDARTS", "Proxyless", "RandomOneShot", "ENAS"])
def test_nnis_own_strategies_search_and_export(name: str, tmp_path: Path) -> None:
    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = LayerChoice([torch.nn.Linear(4, 3), torch.nn.Linear(4, 3, bias=False)], label="choice")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.choice(x)  # type: ignore[no-any-return]

    data = TensorDataset(torch.randn(8, 4), torch.randint(0, 3, (8,)))
    evaluator = Classification(
        train_dataloaders=NniDataLoader(data, batch_size=4), val_dataloaders=NniDataLoader(data, batch_size=2),
        num_classes=3, max_epochs=1, default_root_dir=str(tmp_path), enable_progress_bar=False,
        enable_model_summary=False, logger=False,
    )  # fmt: skip
    space = Space()
    before = [parameter.detach().clone() for parameter in space.parameters()]
    strategy = getattr(nni_strategy, name)(**({"reward_metric_name": "val_acc"} if name == "ENAS" else {}))
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    (model,) = strategy.list_models()
    assert model.sample["choice"] in (0, 1)
    assert any(not torch.equal(a, b) for a, b in zip(before, space.parameters(), strict=False))
    if name == "ENAS":  # its controller saw each batch of the validation loader once
        assert strategy.oneshot_module._trajectory_counter == 4
