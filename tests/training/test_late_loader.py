"""The order of images depends on the seed and the epoch, whether or not the run was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from nni_proxyless.training.late_loader import LateLoader
from nni_proxyless.training.trainer import seed_epoch


class Noting(pl.LightningModule):
    """Module that notes the images of each epoch, and stops in a given one."""

    def __init__(self, stop_in: int | None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.stop_in = stop_in
        self.seen: dict[int, list[Any]] = {}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    def training_step(self, batch: Any, index: int) -> Any:
        if self.current_epoch == self.stop_in:
            raise KeyError
        numbers = [batch[key][0].flatten().tolist() for key in ("a", "b")]
        self.seen.setdefault(self.current_epoch, []).append([*numbers, float(torch.rand(()))])
        return self.layer(batch["a"][0]).sum()


class Seeding(pl.Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        seed_epoch(0, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.save_checkpoint(self.path)


def train(path: Path, *, stop_in: int | None = None, resume: bool = False) -> dict[int, list[Any]]:
    data = TensorDataset(torch.arange(6.0)[:, None])
    trainer = pl.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Seeding(path)], accelerator="cpu",
    )  # fmt: skip
    module = Noting(stop_in)
    loaders = {"a": LateLoader(data, 3, shuffle=True), "b": LateLoader(data, 2, shuffle=True)}
    try:
        trainer.fit(module, loaders, ckpt_path=str(path) if resume else None)
    except KeyError:
        assert stop_in is not None
    return module.seen


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_epoch_sees_what_it_would_have_seen(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole.ckpt")
    torch.manual_seed(123)
    before = train(tmp_path / "parts.ckpt", stop_in=2)
    torch.manual_seed(45)
    after = train(tmp_path / "parts.ckpt", resume=True)
    assert {epoch: len(seen) for epoch, seen in whole.items()} == {0: 3, 1: 3, 2: 3}
    assert {**before, 2: after[2]} == whole
    assert whole[0] != whole[1]


def test_it_is_pytorchs_loader_in_all_else() -> None:
    data = list(range(10))
    torch.manual_seed(1)
    expected = [batch.tolist() for batch in DataLoader(data, 3, shuffle=True, drop_last=True)]  # type: ignore[arg-type]
    torch.manual_seed(1)
    loader = LateLoader(data, 3, shuffle=True, drop_last=True)
    early = iter(loader)
    assert [batch.tolist() for batch in early] == expected
    assert len(loader) == 3
    assert isinstance(loader, DataLoader)
