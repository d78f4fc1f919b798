"""The training of image classifiers, as a Lightning module for NNI's evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from nni.nas.evaluator.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from ..supernet.entangling import entangle
from .accuracy import Batch
from .sgd import make_sgd


class ImageClassification(LightningModule):
    """Training with cross-entropy, SGD with Nesterov momentum and a cosine learning rate.

    Args:
        learning_rate: Initial learning rate. It falls to 0 along a half cosine.
        momentum: Momentum of SGD.
        weight_decay: Factor of the L2 penalty on the weights.
        label_smoothing: Label smoothing of the training loss.
        total_steps: Number of weight steps of the whole training.
        warmup_steps: Number of first steps, included in `total_steps`, in which the learning rate rises linearly.
        decay_norm_bias: Whether weight decay also applies to the parameters of norms and to biases.
        channels_last: Whether network and images use channels_last, which is 2 to 3 times as fast on the CPU.
        class_weights: Weight of each class in the loss, as in PyTorch's cross-entropy. Default: all weigh the same.
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
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.decay_norm_bias = decay_norm_bias
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        weight = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.criterion = nn.CrossEntropyLoss(weight=weight, label_smoothing=label_smoothing)

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model.to(memory_format=self.memory_format))
        entangle(model)

    def on_fit_start(self) -> None:
        entangle(self.model)  # again, because moving the weights to their device has copied them

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        return self.model(images.contiguous(memory_format=self.memory_format))  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss: Tensor = self.criterion(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `val_accuracy`, between 0 and 1. NNI's ENAS uses it as the reward of a sampled network."""
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
            # Parameters of norms and biases have one dimension. Weights of convolutions and linear layers have more.
            (decayed if parameter.ndim > 1 else exempt).append(parameter)
        return [{"params": decayed}, {"params": exempt, "weight_decay": 0.0}]


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate in a step: a linear rise, then a half cosine to 0 (Goyal et al. 2017, section 2.2).

    Args:
        step: Number of the step, counted from 0.
        warmup: Number of steps of the rise.
        total: Number of all steps.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))
