"""Top-k accuracy of a network, and re-estimation of its batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = tuple[Tensor, Tensor]
MANY_CLASSES = 10  # with more classes, the five best of them are a measure of their own


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of a network on some images, all between 0 and 1.

    Attributes:
        top1: Part of the images whose class has the largest logit.
        top5: Part of the images whose class is among the five largest logits; `None` up to `MANY_CLASSES` classes.
        balanced: Mean of the accuracies of the classes that occur, which all count the same.
    """

    top1: float
    top5: float | None
    balanced: float


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace the running statistics of all batch-norms by the plain average over some batches.

    A supernet's running statistics mix those of all paths, so a network decoded from it needs its own statistics.

    Args:
        network: Network to re-estimate; changed in place and left in evaluation mode.
        batches: Batches of images and labels. No weights are trained on them, and the labels are ignored.
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
    """Top-1 accuracy between 0 and 1. Puts the network into evaluation mode."""
    return accuracies(network, batches)[0]


@torch.no_grad()
def accuracies(network: nn.Module, batches: Iterable[Batch], tops: tuple[int, ...] = (1,)) -> tuple[float, ...]:
    """Top-k accuracies between 0 and 1. Puts the network into evaluation mode.

    Args:
        network: Network that maps images to logits.
        batches: Batches of images and labels.
        tops: Value of k for each accuracy. If there are fewer than k classes, k is the number of classes.
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


@torch.no_grad()
def evaluate(network: nn.Module, batches: Iterable[Batch]) -> Accuracies:
    """Compute the accuracies of a network on some images. Puts the network into evaluation mode.

    Args:
        network: Network that maps images to logits.
        batches: Batches of images and labels.
    """
    network.eval()
    ranks, labels = [], []
    classes = 0
    for images, truth in batches:
        logits = network(_on_device(images, network)).cpu()
        classes = logits.shape[1]
        ranks.append(logits.topk(min(5, classes)).indices)  # (batch, 5)
        labels.append(truth)
    found, target = torch.cat(ranks), torch.cat(labels).long()
    right = found[:, 0] == target
    of_class = torch.zeros(classes, dtype=torch.float64).index_add_(0, target, right.double())
    sizes = torch.bincount(target, minlength=classes)
    top5 = (found == target[:, None]).any(1).double().mean() if classes > MANY_CLASSES else None
    return Accuracies(
        int(right.sum()) / len(target),
        None if top5 is None else float(top5),
        float((of_class[sizes > 0] / sizes[sizes > 0]).mean()),
    )


def _on_device(images: Tensor, network: nn.Module) -> Tensor:
    device = next(network.parameters()).device
    return images.to(device).contiguous(memory_format=torch.channels_last)
