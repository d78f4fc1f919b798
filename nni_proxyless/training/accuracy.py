"""Accuracy of a network, and batch-norm statistics of its own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = tuple[Tensor, Tensor]


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
