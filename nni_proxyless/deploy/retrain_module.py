"""The Lightning module of a retraining: mixtures of images, distillation, and batch-norms that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import v2

from ..training.accuracy import Batch
from ..training.image_classification import ImageClassification
from ..training.trainer import uses_channels_last
from .distillation import distillation_loss
from .retrain_recipe import RetrainRecipe


class Retraining(ImageClassification):
    """Lightning module that trains one network, as a recipe says.

    Args:
        recipe: Recipe of the retraining.
        steps_per_epoch: Number of steps of an epoch.
        classes: Number of classes.
        class_weights: Weight of each class in the loss. Default: all weigh the same.
        teacher: Larger network in evaluation mode whose outputs are learnt as well; `None` for none.
    """

    def __init__(
        self,
        recipe: RetrainRecipe,
        steps_per_epoch: int,
        classes: int,
        class_weights: Sequence[float] | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__(
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            decay_norm_bias=recipe.decay_norm_bias,
            label_smoothing=recipe.label_smoothing,
            total_steps=steps_per_epoch * recipe.epochs,
            warmup_steps=steps_per_epoch * recipe.warmup_epochs,
            channels_last=uses_channels_last(recipe),
            class_weights=class_weights,
        )
        mixtures: list[Any] = []
        if recipe.mixup_alpha:
            mixtures.append(v2.MixUp(alpha=recipe.mixup_alpha, num_classes=classes))
        if recipe.cutmix_alpha:
            mixtures.append(v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=classes))
        self._mix = v2.RandomChoice(mixtures) if mixtures else None
        self._teacher = () if teacher is None else (teacher,)  # a tuple, so that checkpoints do not contain it
        self._weight, self._temperature = recipe.distillation_weight, recipe.distillation_temperature
        self._keeps_norms = recipe.freeze_batch_norm

    def set_model(self, model: nn.Module) -> None:
        super().set_model(model)
        if self._keeps_norms:
            for norm in _norms(model):
                norm.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Retraining:
        """Set the training mode. Batch-norms that are kept stay in evaluation mode, so they record nothing."""
        super().train(mode)
        if mode and self._keeps_norms:
            for norm in _norms(self):
                norm.eval()
        return self

    def on_fit_start(self) -> None:
        super().on_fit_start()
        for teacher in self._teacher:
            teacher.to(self.device).to(memory_format=self.memory_format)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch if self._mix is None else self._mix(*batch)
        if not self._teacher:
            return super().training_step((images, labels), batch_idx)
        with torch.no_grad():
            theirs = self._teacher[0](images.contiguous(memory_format=self.memory_format))
        logits = self(images)
        soft = distillation_loss(logits, theirs, self._temperature)
        loss: Tensor = (1 - self._weight) * self.criterion(logits, labels) + self._weight * soft
        self.log("train_loss", loss)
        return loss


def _norms(module: nn.Module) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]
