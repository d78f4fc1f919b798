"""Base of the search's Lightning module, with the features of the evaluator's module that NNI's own lacks."""

from __future__ import annotations

from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.oneshot.pytorch.differentiable import DartsLightningModule
from torch import Tensor

from ..errors import InputError
from ..supernet.entangling import entangle
from ..training.memory_format import ChannelsLast, on_cpu
from .evaluator_step import each_part
from .rank_mean import RankMean


class EvaluatorModule(DartsLightningModule):
    """Optimizes the evaluator's weights on one or several ranks, and calls those hooks of its module that NNI does not.

    Args:
        *args: Arguments of NNI's module.
        channels_last: Whether convolutions on the CPU use channels_last.
        **kwargs: Keyword arguments of NNI's module.

    Attributes:
        ranks: Mean over the ranks of the search.
        channels_last: Convolutions in channels_last; `None` if their memory format was not changed.
    """

    def __init__(self, *args: Any, channels_last: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ranks = RankMean()
        self.channels_last: ChannelsLast | None = None
        self._wants_channels_last = channels_last

    def on_fit_start(self) -> Any:
        model = self.training_module.model
        if self._wants_channels_last and on_cpu(model):
            self.channels_last = ChannelsLast(model)
        entangle(model)  # for evaluators that do not do it themselves
        return super().on_fit_start()

    def on_train_start(self) -> Any:
        self.ranks = RankMean(self.trainer.world_size)
        check_optimizers(self.training_module, self.trainer)
        if self.channels_last is not None:
            self.channels_last.follow(self.trainer.optimizers)
        return super().on_train_start()

    def advance_optimization(
        self,
        loss: Tensor,
        batch_idx: int,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Take one optimizer step of the weights.

        In contrast to NNI's method, gradients are averaged over ranks, and clipped only after a gradient scaler has
        unscaled them.
        """
        optimizers = self.optimizers()
        listed = optimizers if isinstance(optimizers, list) else [optimizers]
        (weights,) = [o for o in listed if not getattr(o, "is_arch_optimizer", False)]
        module, epoch = self.training_module, self.trainer.current_epoch
        module.on_before_zero_grad(weights)
        module.optimizer_zero_grad(epoch, batch_idx, weights)
        self.manual_backward(loss)
        self.ranks.gradients(p for group in weights.param_groups for p in group["params"])
        module.optimizer_step(epoch, batch_idx, weights)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.gradient_clip_val is not None and not getattr(optimizer, "is_arch_optimizer", False):
            self.training_module.configure_gradient_clipping(optimizer, self.gradient_clip_val, "norm")

    def configure_callbacks(self) -> Any:
        return self.training_module.configure_callbacks()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return each_part(batch, lambda part: self.training_module.on_before_batch_transfer(part, dataloader_idx))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        move = self.training_module.transfer_batch_to_device
        return each_part(batch, lambda part: move(part, device, dataloader_idx))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return each_part(batch, lambda part: self.training_module.on_after_batch_transfer(part, dataloader_idx))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.training_module.on_load_checkpoint(checkpoint)


def check_optimizers(module: Any, trainer: Any) -> None:
    """Check that a search can step the evaluator's optimizer and learning rate scheduler.

    Args:
        module: Lightning module of the evaluator.
        trainer: Lightning trainer, which has the optimizers.

    Raises:
        InputError: The evaluator optimizes manually, has more than one optimizer or one that needs a closure, or lowers
            its learning rate by a validation metric.
    """
    name = type(module).__name__
    if not module.automatic_optimization:
        raise InputError(
            f"{name} sets automatic_optimization=False, so a search cannot step its optimizer; return the loss from "
            "training_step and leave the optimization to Lightning"
        )
    weights = [o for o in trainer.optimizers if not getattr(o, "is_arch_optimizer", False)]
    if len(weights) != 1:
        raise InputError(f"{name}.configure_optimizers must return one optimizer for a search, got {len(weights)}")
    if isinstance(weights[0], torch.optim.LBFGS):
        raise InputError(
            f"{name} uses LBFGS, which needs the loss several times in a step; a search computes it once, so use an "
            "optimizer such as SGD or Adam"
        )
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    if any(
        config.reduce_on_plateau or isinstance(config.scheduler, plateau) for config in trainer.lr_scheduler_configs
    ):
        raise InputError(
            f"{name} uses ReduceLROnPlateau, which needs a validation metric; validation_step does not run during a "
            "search, so use a schedule that depends on the step or epoch, such as CosineAnnealingLR"
        )
