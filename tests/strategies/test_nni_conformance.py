"""The requirements that NNI's own tests place on every one-shot strategy and its supermodules.

The tests follow `test/algo/nas/oneshot` of NNI 3.0: spaces of every kind can be searched and exported, labels and
samples have NNI's meaning, a supernet computes the same outputs as the frozen model, a search can be resumed from a
checkpoint, and the evaluator's learning rate schedule and gradient clipping are respected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nni
import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, LightningModule, Regression, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.hub.pytorch.nasbench201 import OPS_WITH_STRIDE
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableConv2d, Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.space import RawFormatModelSpace, model_context
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import SpaceError


class Layers(ModelSpace):
    """Space with choices of convolutions, one of them nested in another choice."""

    def __init__(self) -> None:
        super().__init__()
        inner = LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5, padding=2)], label="inner")
        self.first = LayerChoice(
            {"3": nn.Conv2d(1, 4, 3, padding=1), "5": nn.Conv2d(1, 4, 5, padding=2)}, label="first"
        )
        self.second = LayerChoice({"plain": nn.Identity(), "nested": inner}, label="second")
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Inputs(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(1, 4, 3, padding=1) for _ in range(4))
        self.choose = InputChoice(4, 2, label="which")
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.choose([conv(x) for conv in self.convolutions]).mean((2, 3)))  # type: ignore[no-any-return]


class Depths(ModelSpace):
    """Space with a repeated fixed block, and a Repeat whose blocks are choices with separate labels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.plain = Repeat(nn.Conv2d(4, 4, 1), (2, 4), label="plain")
        self.chosen = Repeat(
            lambda i: LayerChoice([nn.Conv2d(4, 4, 1), nn.Identity()], label=f"block{i}"), nni.choice("chosen", [1, 3])
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.chosen(self.plain(self.stem(x))).mean((2, 3)))  # type: ignore[no-any-return]


SPACES = {"layers": Layers, "inputs": Inputs, "depths": Depths}


def evaluator(folder: Path, epochs: int = 1, **settings: Any) -> Any:
    data = TensorDataset(torch.randn(32, 1, 6, 6), torch.randint(0, 3, (32,)))
    return Classification(
        train_dataloaders=DataLoader(data, batch_size=8),
        val_dataloaders=DataLoader(data, batch_size=8),
        num_classes=3,
        max_epochs=epochs,
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        **settings,
    )


def searched(space: ModelSpace, with_evaluator: Any, **settings: Any) -> ProxylessNAS:
    strategy = ProxylessNAS(**settings)
    strategy(RawFormatModelSpace(space, with_evaluator), SequentialExecutionEngine())
    return strategy


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("warmup_epochs", [0, 1])
@pytest.mark.parametrize("arch_gradient", ["two_path", "full", "reinforce"])
def test_spaces_of_every_kind_are_searched_and_exported(
    name: str, warmup_epochs: int, arch_gradient: Any, tmp_path: Path
) -> None:
    space = SPACES[name]()
    strategy = searched(space, evaluator(tmp_path, 2), warmup_epochs=warmup_epochs, arch_gradient=arch_gradient)
    (model,) = strategy.list_models()
    assert set(model.sample) == set(SPACES[name]().simplify())
    assert SPACES[name]().contains(model.sample)
    frozen = SPACES[name]().freeze(model.sample)
    assert frozen(torch.randn(2, 1, 6, 6)).shape == (2, 3)
    assert Path(strategy.state_dict()["ckpt_path"]).is_file()


def test_its_name() -> None:
    assert repr(ProxylessNAS()).startswith("ProxylessNAS(")


def test_a_checkpoint_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = searched(Layers(), evaluator(tmp_path, 1)).state_dict()
    strategy = ProxylessNAS()
    strategy.initialize(RawFormatModelSpace(Layers(), evaluator(tmp_path, 2)), SequentialExecutionEngine())
    strategy.load_state_dict(state)
    strategy.run()
    trainer = strategy.oneshot_module.trainer
    assert (trainer.current_epoch, trainer.ckpt_path) == (2, state["ckpt_path"])


@pytest.mark.parametrize("name", SPACES)
def test_a_sampled_supernet_computes_what_the_frozen_model_does(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    space, x = SPACES[name](), torch.randn(2, 1, 6, 6)
    strategy = ProxylessNAS()
    strategy.mutate_model(space)
    modules = [m for m in space.modules() if isinstance(m, BaseSuperNetModule)]
    for _ in range(6):
        sample: dict[str, Any] = {}
        for module in modules:
            sample.update(module.resample(sample))
        frozen = space.freeze(sample)
        torch.testing.assert_close(frozen(x), space(x))
        with model_context(sample):  # a new model of the same sample can load the weights
            again = SPACES[name]()
        again.load_state_dict(frozen.state_dict())
        torch.testing.assert_close(again(x), frozen(x))


def test_every_candidate_of_nasbench_201_gets_a_gradient() -> None:
    class Cell(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.op = LayerChoice({name: make(3, 3, 1) for name, make in OPS_WITH_STRIDE.items()}, label="op")

        def forward(self, x: Tensor) -> Tensor:
            return self.op(x)  # type: ignore[no-any-return]

    strategy = ProxylessNAS()
    cell = strategy.mutate_model(Cell())
    (gate,) = strategy._gates.values()
    for mode in ("two_path", "full"):
        for _ in range(10):
            assert cell.op.resample({})["op"] in OPS_WITH_STRIDE
            gate.draw_for_gradient(mode)
            gate.alpha.grad = None
            (torch.randn(2, 3, 9, 9) * cell(torch.randn(2, 3, 9, 9))).sum().backward()
            assert gate.alpha.grad is not None
            assert float(gate.alpha.grad.abs().sum()) > 0
    assert cell.op.export({})["op"] in OPS_WITH_STRIDE
    assert sum(cell.op.export_probs({})["op"].values()) == pytest.approx(1.0)


def test_samples_of_an_input_choice() -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(Inputs())
    drawn = {tuple(space.choose.resample({})["which"]) for _ in range(200)}
    assert drawn == {(i, j) for i in range(4) for j in range(i + 1, 4)}
    assert space.choose.export({})["which"] in [list(pair) for pair in drawn]
    assert space.choose.resample({"which": [0, 1]}) == {}  # a label in the memo is not sampled again


def test_samples_of_a_repeat() -> None:
    strategy = ProxylessNAS()
    space = strategy.mutate_model(Depths())
    assert {space.plain.resample({})["plain"] for _ in range(100)} == {2, 3, 4}
    assert set(space.plain.export_probs({})["plain"]) == {2, 3, 4}
    assert space.plain.contains({"plain": 3})
    assert not space.plain.contains({"plain": 1})
    frozen = space.plain.freeze({"plain": 3})
    assert isinstance(frozen, nn.Sequential)
    assert len(frozen) == 3
    whole = space.freeze({"plain": 2, "chosen": 3, "block0": 0, "block1": 1, "block2": 0})
    assert [type(block) for block in whole.chosen] == [nn.Conv2d, nn.Identity, nn.Conv2d]


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    """Test with attention, which takes query, key and value, and returns a tuple."""

    class Attention(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.attend = LayerChoice(
                {str(heads): nn.MultiheadAttention(8, heads, batch_first=True) for heads in (1, 2, 4)}, label="heads"
            )
            self.head = nn.Linear(8, 1)

        def forward(self, qkv: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            attended, _ = self.attend(*qkv, need_weights=False)
            return self.head(attended.mean(1))  # type: ignore[no-any-return]

    class Triples(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> Any:
            torch.manual_seed(index)
            return tuple(torch.randn(5, 8) for _ in range(3)), torch.randn(1)

    def with_evaluator() -> Any:
        return Regression(
            train_dataloaders=DataLoader(Triples(), batch_size=8),
            val_dataloaders=DataLoader(Triples(), batch_size=8),
            max_epochs=1,
            default_root_dir=str(tmp_path),
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
        )

    for arch_gradient in ("two_path", "full"):
        strategy = searched(Attention(), with_evaluator(), arch_gradient=arch_gradient)
        (model,) = strategy.list_models()
        assert model.sample["heads"] in {"1", "2", "4"}


def test_widths_of_the_output_cannot_be_chosen(tmp_path: Path) -> None:
    class Widths(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = MutableConv2d(1, nni.choice("width", [4, 8]), 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

    with pytest.raises(SpaceError, match=r"choice 'width': candidate '4' returns a tensor of shape \(\d+, 4, 4, 4\)"):
        searched(Widths(), evaluator(tmp_path))


def test_the_evaluators_schedule_and_clipping_are_kept(tmp_path: Path) -> None:
    rates: list[float] = []
    norms: list[float] = []

    class Module(LightningModule):
        def configure_optimizers(self) -> Any:
            self.optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [self.optimizer], [torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.1)]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            images, labels = batch
            return 1000 * nn.functional.cross_entropy(self.model(images), labels)  # type: ignore[no-any-return]

        def on_train_epoch_start(self) -> None:
            rates.append(self.optimizer.param_groups[0]["lr"])

        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)
            weights = [p for group in self.optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in weights if p.grad is not None]
            norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))

    data = TensorDataset(torch.randn(16, 1, 6, 6), torch.randint(0, 3, (16,)))
    trainer = Trainer(
        max_epochs=6, default_root_dir=str(tmp_path), enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, logger=False,
    )  # fmt: skip
    with_evaluator = Lightning(Module(), trainer, train_dataloaders=DataLoader(data), val_dataloaders=DataLoader(data))
    searched(Layers(), with_evaluator, gradient_clip_val=5.0)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert len(norms) == 6 * 16
    assert max(norms) == pytest.approx(5.0, abs=0.01)
