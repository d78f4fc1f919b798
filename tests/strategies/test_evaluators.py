"""Any evaluator: small real tasks of scikit-learn, with a candidate that drops what the task needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, DataLoader, Lightning, Regression, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.space import RawFormatModelSpace
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import SpaceError
from nni_proxyless.supernet.single_path import single_path
from tests.strategies.test_self_check import QUIET, Plain, Signs, signs


class Drop(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x


def keep_or_drop(label: str = "layer") -> LayerChoice:
    return LayerChoice({"drop": Drop(), "keep": nn.Identity()}, label=label)


def digits() -> tuple[Tensor, Tensor]:
    """Images of shape (n, 1, 8, 8) from 0 to 1, and their digits."""
    found: Any = load_digits()
    return torch.tensor(found.images[:600, None] / 16.0, dtype=torch.float32), torch.tensor(found.target[:600]).long()


class Images(ModelSpace):
    """Convolutions of a chosen width and kernel, with outputs of one kind or another."""

    def __init__(self, head: Callable[[], nn.Module]) -> None:
        super().__init__()
        width, kernel = nni.choice("width", [4, 8]), nni.choice("kernel", [1, 3])
        self.layer = keep_or_drop()
        self.body = nn.Sequential(MutableConv2d(1, width, kernel, padding=kernel // 2), nn.ReLU())
        self.out = MutableConv2d(width, 8, 1)
        self.head = head()

    def forward(self, x: Tensor) -> Any:
        return self.head(self.out(self.body(self.layer(x))))


class Flat(nn.Sequential):
    def __init__(self, count: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(8 * 64, count))


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.digit, self.box = Flat(10), Flat(4)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"digit": self.digit(x), "others": (self.box(x),)}


class Halves(ModelSpace):
    """Two inputs by name: the upper and the lower half of an image."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nni.choice("width", [8, 32])
        self.layer = keep_or_drop()
        self.net = nn.Sequential(MutableLinear(64, hidden), nn.ReLU(), MutableLinear(hidden, 10))

    def forward(self, *, upper: Tensor, lower: Tensor) -> Tensor:
        return self.net(torch.cat([self.layer(upper), self.layer(lower)], 2).flatten(1))  # type: ignore[no-any-return]


class OfDicts(Dataset[dict[str, Tensor]]):
    def __init__(self) -> None:
        self.x, self.y = digits()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"upper": self.x[index, :, :4], "lower": self.x[index, :, 4:], "target": self.y[index]}


class WithDicts(Plain):
    def training_step(self, batch: Any, _index: int) -> dict[str, Tensor]:  # type: ignore[override]
        target = batch.pop("target")
        return {"loss": nn.functional.cross_entropy(self.model(**batch), target)}


class Segmentation(Plain):
    """Each pixel is told to be ink or not, with the loss of Dice, which is one number for a batch."""

    def training_step(self, batch: Any, _index: int) -> Tensor:
        found = torch.sigmoid(self.model(batch[0]))
        return 1 - 2 * (found * batch[1]).sum() / (found + batch[1]).sum()


class Detection(Plain):
    """The digit, and the box around its ink."""

    def training_step(self, batch: Any, _index: int) -> Tensor:
        found = self.model(batch[0])
        (box,) = found["others"]
        return nn.functional.cross_entropy(found["digit"], batch[1]) + nn.functional.smooth_l1_loss(box, batch[2])


def boxes(x: Tensor) -> Tensor:
    """First and last row and column of each image's ink, in parts of its size."""
    found = []
    for image in x[:, 0]:
        rows, columns = (torch.nonzero(image.amax(dim) > 0.5).flatten() for dim in (1, 0))
        found.append([rows[0], rows[-1], columns[0], columns[-1]])
    return torch.tensor(found) / 8.0


def diabetes() -> TensorDataset:
    found: Any = load_diabetes()
    y = found.target.astype(np.float32)
    return TensorDataset(torch.tensor(found.data * 20).float(), torch.tensor((y - y.mean()) / y.std())[:, None])


class Table(ModelSpace):
    def __init__(self) -> None:
        super().__init__()
        hidden = nni.choice("width", [4, 16])
        self.layer = keep_or_drop()
        self.net = nn.Sequential(MutableLinear(10, hidden), nn.Tanh(), MutableLinear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.layer(x))  # type: ignore[no-any-return]


def _of_nni(kind: Any, data: Any, **settings: Any) -> Any:
    train, val = (DataLoader(data, batch_size=60) for _ in range(2))
    return kind(train_dataloaders=train, val_dataloaders=val, max_epochs=6, learning_rate=0.02, **settings, **QUIET)


def _own(module: Any, data: Any) -> Any:
    train, val = (DataLoader(data, batch_size=60) for _ in range(2))
    return Lightning(module, Trainer(max_epochs=6, **QUIET), train_dataloaders=train, val_dataloaders=val)


TASKS: Mapping[str, Callable[[], tuple[ModelSpace, Any]]] = {
    "classification": lambda: (
        Images(lambda: Flat(10)), _of_nni(Classification, TensorDataset(*digits()), num_classes=10),
    ),
    "regression": lambda: (Table(), _of_nni(Regression, diabetes())),
    "two inputs in a dictionary": lambda: (Halves(), _own(WithDicts(), OfDicts())),
    "segmentation": lambda: (
        Images(lambda: nn.Conv2d(8, 1, 1)), _own(Segmentation(), TensorDataset(x := digits()[0], (x > 0.5).float())),
    ),
    "detection": lambda: (
        Images(TwoOutputs), _own(Detection(), TensorDataset(*(of := digits()), boxes(of[0]))),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "gradient"),
    [(task, ("full", "two_path", "reinforce")[number % 3]) for number, task in enumerate(TASKS)],
)
def test_a_real_task_is_searched(task: str, gradient: Any) -> None:
    torch.manual_seed(0)
    space, evaluator = TASKS[task]()
    strategy = ProxylessNAS(arch_gradient=gradient, arch_update_every=1, arch_learning_rate=0.1, seed=0)
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())
    choices = strategy.decoded_choices()
    assert choices["layer"] == "keep"
    assert strategy.warnings == []
    (model,) = strategy.list_models()
    assert {label: model.sample[label] for label in choices} == choices


class Smooth(Plain):
    """Evaluator whose loss contains the gradient of the network by its input, and which has no validation step."""

    def training_step(self, batch: Any, _index: int) -> Tensor:
        x = batch[0].clone().requires_grad_()
        y = self.model(x)
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        loss: Tensor = nn.functional.cross_entropy(y, batch[1]) + 0.01 * slope.pow(2).mean()
        return loss


def test_a_loss_with_a_gradient_is_searched_by_reinforce_and_compared() -> None:
    def search(gradient: Any) -> ProxylessNAS:
        torch.manual_seed(0)
        data = [DataLoader(signs(seed), batch_size=32) for seed in (0, 1)]
        evaluator = Lightning(
            Smooth(), Trainer(max_epochs=4, **QUIET), train_dataloaders=data[0], val_dataloaders=data[1]
        )
        settings: dict[str, Any] = {"arch_learning_rate": 0.2, "arch_update_every": 1}
        strategy = ProxylessNAS(arch_gradient=gradient, finalists=2, seed=0, **settings)
        strategy(RawFormatModelSpace(Signs(), evaluator), SequentialExecutionEngine())
        return strategy

    strategy = search("reinforce")
    assert [finalist.choices["layer"] for finalist in strategy.compared] == ["keep", "drop"]
    assert strategy.compared[0].score > strategy.compared[1].score
    assert all(weight.requires_grad for weight in strategy.supernet.parameters())
    for gradient in ("full", "two_path"):
        with pytest.raises(
            SpaceError, match=r"the loss contains a gradient of the network .*set arch_gradient to reinf"
        ):
            search(gradient)


class Auxiliary(ModelSpace):
    """Network with a second output while it trains, as NNI's DARTS with an auxiliary loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = keep_or_drop()
        self.norm, self.linear, self.second = nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.layer(x))
        return (self.linear(y), self.second(y)) if self.training else self.linear(y)


class WithAuxiliaryLoss(Plain):
    def training_step(self, batch: Any, _index: int) -> Tensor:
        first, second = self.model(batch[0])
        losses = [nn.functional.cross_entropy(y, batch[1]) for y in (first, second)]
        return losses[0] + 0.4 * losses[1]

    def validation_step(self, batch: Any, _index: int) -> None:
        self.log("val_acc", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())


@pytest.mark.parametrize("gradient", ["full", "reinforce"])
def test_a_network_may_have_further_outputs_while_it_trains(gradient: Any) -> None:
    torch.manual_seed(0)
    data = [DataLoader(signs(seed), batch_size=32) for seed in (0, 1)]
    trainer = Trainer(max_epochs=4, **QUIET)
    evaluator = Lightning(WithAuxiliaryLoss(), trainer, train_dataloaders=data[0], val_dataloaders=data[1])
    strategy = ProxylessNAS(arch_gradient=gradient, finalists=2, arch_learning_rate=0.2, arch_update_every=1, seed=0)
    strategy(RawFormatModelSpace(Auxiliary(), evaluator), SequentialExecutionEngine())
    scores = {finalist.choices["layer"]: finalist.score for finalist in strategy.compared}
    assert scores["keep"] > 0.8 > scores["drop"]
    # By hand: statistics of the training images, whatever mode they were estimated in.
    network: Any = strategy.supernet.eval()
    x, _ = signs(0).tensors
    y, right = signs(1).tensors
    with single_path(network, {"layer": "keep"}), torch.no_grad():
        network.norm.reset_running_stats()
        network.norm.momentum = None
        network.norm.train()
        for part in torch.split(x, 32):
            network(part)
        network.norm.eval()
        assert scores["keep"] == pytest.approx(float((network(y).argmax(1) == right).float().mean()), abs=1e-5)
