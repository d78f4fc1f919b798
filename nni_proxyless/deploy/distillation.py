"""Knowledge distillation: a network learns the outputs of a larger one besides the labels (Hinton et al. 2015)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from ..decoding.checkpoint import SearchCheckpoint
from ..errors import InputError
from ..files import results_folder
from ..network.architecture import Architecture
from ..network.inherited import read_inherited, supernet_state, weights_file
from ..network.space_spec import SpaceSpec
from ..training.accuracy import Batch, reestimate_batch_norm

_log = logging.getLogger(__name__)
STATISTICS_BATCHES = 10  # on which the batch-norm statistics of a supernet's largest network are estimated


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the softened outputs, less its least value: T² KL(softmax(t / T) || softmax(z / T)).

    The factor T² keeps the size of the gradient the same at every temperature (Hinton et al. 2015, section 2.1).

    Args:
        logits: Logits z of the network that learns, shape (batch, classes).
        teacher: Logits t of the larger network, shape (batch, classes).
        temperature: Temperature T.

    Returns:
        Mean over the batch, a scalar.
    """
    mine = functional.log_softmax(logits.float() / temperature, dim=1)
    theirs = functional.log_softmax(teacher.float() / temperature, dim=1)
    return temperature**2 * functional.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def load_teacher(path: Path, spec: SpaceSpec, statistics: Iterable[Batch]) -> nn.Module:
    """Load the network to learn from, in evaluation mode.

    Args:
        path: Architecture file with its `weights.pt` beside it, the folder of both, or the `checkpoint.ckpt` of a
            search. Of a search, it is the largest network that its supernet has the weights of.
        spec: Space of the network that learns: both must take the same images and have the same classes.
        statistics: Batches of training images for the batch-norm statistics of a supernet's largest network.

    Raises:
        InputError: There is no such network, or it takes other images or has other classes.
    """
    if path.name == results_folder.CHECKPOINT:
        architecture = _largest(path)
        weights = path
    else:
        file = path / results_folder.ARCHITECTURE if path.is_dir() else path
        architecture, weights = Architecture.load(file), weights_file(file.parent)
    theirs = architecture.require_spec()
    if (theirs.input_shape, theirs.classes) != (spec.input_shape, spec.classes):
        raise InputError(
            f"the teacher {path} takes images of shape {theirs.input_shape} and has {theirs.classes} classes, but the "
            f"network takes {spec.input_shape} and has {spec.classes}; give another teacher"
        )
    network = architecture.build(pretrained=read_inherited(weights, architecture).state)
    if weights is path:
        reestimate_batch_norm(network, itertools.islice(statistics, STATISTICS_BATCHES))
    _log.info("learning from %s, with %d multiply-adds", path, architecture.multiply_adds)
    return network.eval().requires_grad_(False)


def _largest(path: Path) -> Architecture:
    """Return the largest network of a search's supernet."""
    spec = SearchCheckpoint.load(path).spec
    return Architecture.of_space(spec, largest_choices(spec, supernet_state(path)))


def largest_choices(spec: SpaceSpec, available: Mapping[str, Tensor]) -> dict[str, str]:
    """Choose the largest candidate of each layer of which a supernet has the weights.

    Args:
        spec: Description of the space.
        available: State dict of the supernet; it lacks the candidates that have been pruned.

    Returns:
        Mapping from the label of each layer to the candidate with the most multiply-adds.
    """
    choices = {}
    for number, layer in enumerate(spec.layers, start=1):  # block 0 is the first one, which is not searched
        sizes = {
            name: operator.multiply_adds
            for name, operator in layer.candidates.items()
            if operator is not None and any(key.startswith(f"blocks.{number}.{name}.") for key in available)
        }
        choices[layer.label] = max(sizes, key=sizes.__getitem__) if sizes else "skip"
    return choices
