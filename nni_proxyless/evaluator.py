"""Training and validation of networks: an NNI Lightning evaluator, batch-norm re-estimation, accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from .errors import InputError
from .space import entangle

Batch = tuple[Tensor, Tensor]


class ImageClassification(LightningModule):
    """Cross-entropy, SGD with Nesterov momentum, cosine learning rate.

    Args:
        learning_rate: At the start; falls to 0 along a half cosine.
        momentum: Of SGD.
        weight_decay: L2 penalty.
        decay_norm_bias: Whether it holds for the weights of norms and for biases too.
        label_smoothing: Of the cross-entropy in training.
        total_steps: Weight steps of the whole training.
        warmup_steps: Of these, steps at the start in which the learning rate rises from 0.
        channels_last: Memory format of network and images: 2 to 3 times as fast on the CPU.
    """

    def __init__(
        self,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        label_smoothing: float,
        total_steps: int,
        warmup_steps: int = 0,
        decay_norm_bias: bool = True,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_norm_bias = decay_norm_bias
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model.to(memory_format=self.memory_format))
        entangle(model)

    def on_fit_start(self) -> None:
        entangle(self.model)  # now that its weights are on their device

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, classes)."""
        return self.model(images.contiguous(memory_format=self.memory_format))  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss: Tensor = self.criterion(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_accuracy`, between 0 and 1: what NNI's ENAS rewards a sampled network with."""
        images, labels = batch
        self.log("val_accuracy", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = make_sgd(
            self._parameter_groups(), self.learning_rate, self.momentum, self.weight_decay,
            overlapping=getattr(self.model, "entangled", False),
        )  # fmt: skip
        schedule: Any = CosineAnnealingLR(optimizer, self.total_steps)
        if self.warmup_steps:
            schedule = LambdaLR(optimizer, partial(warmup_cosine, warmup=self.warmup_steps, total=self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        if self.decay_norm_bias:
            return [{"params": list(self.parameters())}]
        decayed: list[nn.Parameter] = []
        exempt: list[nn.Parameter] = []
        for parameter in self.parameters():
            # Those of a norm and all biases have one dimension; what is convolved or multiplied has more.
            (decayed if parameter.ndim > 1 else exempt).append(parameter)
        return [{"params": decayed}, {"params": exempt, "weight_decay": 0.0}]


class FusedSGD(torch.optim.SGD):
    """SGD in one kernel for each tensor, also where only some of the weights have a momentum yet.

    PyTorch's fused kernel cannot begin the momentum of some weights only, as when a path is sampled for the first time.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; momentum that is not there yet begins at 0, which is what SGD without dampening does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and self.state[weight].get("momentum_buffer") is None:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        super().step()
        return loss


def make_sgd(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    weight_decay: float = 0.0,
    *,
    overlapping: bool = False,
) -> torch.optim.SGD:
    """SGD, with Nesterov momentum where there is momentum; fused on the CPU.

    Not on CUDA, where Lightning cannot clip what a scaler (16-mixed) has scaled in a fused optimizer.

    Args:
        parameters: Tensors or groups of them.
        learning_rate: At the start.
        momentum: Of SGD.
        weight_decay: L2 penalty, of groups that have none of their own.
        overlapping: Whether some of them are views of the same memory, which must not be changed at the same time: on
            CUDA PyTorch would otherwise take a step on all tensors at once.
    """
    listed = list(parameters)
    groups = listed if listed and isinstance(listed[0], dict) else [{"params": listed}]
    fused = momentum > 0 and all(weight.device.type == "cpu" for group in groups for weight in group["params"])
    if fused:
        groups = [part for group in groups for part in _fused_where_dense(group)]
        make: type[torch.optim.SGD] = FusedSGD
    else:
        make = torch.optim.SGD
    return make(
        groups, learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0, fused=fused,
        foreach=False if overlapping else None,
    )  # fmt: skip


def _fused_where_dense(group: dict[str, Any]) -> list[dict[str, Any]]:
    """A group in two: PyTorch's fused kernel takes every weight for dense, which entangled depthwise ones are not."""
    dense = [weight for weight in group["params"] if _is_dense(weight)]
    kept = {id(weight) for weight in dense}
    strided = [weight for weight in group["params"] if id(weight) not in kept]
    parts = [{**group, "params": dense}] if dense else []
    return [*parts, {**group, "params": strided, "fused": False, "foreach": False}] if strided else parts


def _is_dense(weight: Tensor) -> bool:
    """Whether its elements fill a piece of memory, in whatever order."""
    filled = 1
    for stride, size in sorted(zip(weight.stride(), weight.shape, strict=True)):
        if size > 1:
            if stride != filled:
                return False
            filled *= size
    return True


def check_fused(optimizers: Iterable[Any]) -> None:
    """Refuse fused optimizers of weights that are views with gaps, as entangled depthwise kernels are.

    Args:
        optimizers: Those of an evaluator, PyTorch's or Lightning's.

    Raises:
        InputError: PyTorch's fused kernels would take such a weight for dense, and change others in its place.
    """
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if group.get("fused") and not all(map(_is_dense, group["params"])):
            raise InputError(
                "the evaluator's optimizer has fused=True, which would train entangled weights wrongly; "
                "give fused=False, or MobileNetV2Space(entangled=False)"
            )


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Part of the learning rate in a step: a straight rise, then a half cosine to 0 (Goyal et al. 2017, section 2.2).

    Args:
        step: Counted from 0.
        warmup: Steps of the rise.
        total: Steps in all.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace running statistics by the plain average over some batches.

    A supernet's statistics mix all paths; those of one decoded network are its own.

    Args:
        network: Changed in place; left in evaluation mode.
        batches: Images and labels; nothing is learnt from either.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    network.train()
    for images, _ in batches:
        network(_on_device(images, network))
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def accuracy(network: nn.Module, batches: Iterable[Batch]) -> float:
    """Top-1 accuracy, between 0 and 1, in evaluation mode."""
    return accuracies(network, batches)[0]


@torch.no_grad()
def accuracies(network: nn.Module, batches: Iterable[Batch], tops: tuple[int, ...] = (1,)) -> tuple[float, ...]:
    """Top-k accuracies, between 0 and 1, in evaluation mode.

    Args:
        network: Maps images to logits.
        batches: Images and labels.
        tops: The k of each; of fewer classes than k, all count.
    """
    network.eval()
    correct = torch.zeros(len(tops), dtype=torch.long)
    total = 0
    for images, labels in batches:
        logits = network(_on_device(images, network)).cpu()
        ranked = logits.topk(min(max(tops), logits.shape[1])).indices  # (batch, k)
        hits = ranked == labels[:, None]
        correct += torch.stack([hits[:, :k].any(1).sum() for k in tops])
        total += len(labels)
    return tuple(int(count) / total for count in correct)


def _on_device(images: Tensor, network: nn.Module) -> Tensor:
    device = next(network.parameters()).device
    return images.to(device).contiguous(memory_format=torch.channels_last)
