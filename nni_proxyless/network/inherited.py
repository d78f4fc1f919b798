"""Weights that a training inherits: from files of this package and of others, for one architecture.

A file may hold a plain state dict, one that another program has wrapped (`state_dict`, prefixes such as `module.`), the
checkpoint of a retraining, or that of a search, whose supernet has the weights of every network of its space.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ArchitectureError, DamagedFileError, InputError, clipped
from .architecture import Architecture
from .torch_file import fault_of, read_torch_file
from .weights import load_into
from .weights import weights_file as weights_file

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "model_state", "weights")
_OTHERS = frozenset({"teacher", "ema", "ema_model", "model_ema", "average", "swa", "momentum", "target"})
_FIRST = "stem.conv.weight"  # a key of every network; what stands before it in a file is a prefix
_CLASSIFIER = "classifier."
_COUNT = "num_batches_tracked"  # of batch-norms; old files lack it, and nothing depends on it here


@dataclass(frozen=True)
class Inherited:
    """The weights of a file that fit an architecture.

    Attributes:
        state: State dict of the network; without the classifier if it is left out.
        left_out: Why the classifier is left out; `None` if it is inherited.
    """

    state: Mapping[str, Tensor]
    left_out: str | None = None


def read_inherited(
    path: str | os.PathLike[str], architecture: Architecture, other_classes: str | None = None
) -> Inherited:
    """Read the weights of a file that fit an architecture. Code in the file is never executed.

    Args:
        path: Path of the file, or of a folder of results.
        architecture: Architecture of the network, with the number of classes of its data.
        other_classes: Why the classes of the weights are not those of the data, if that is known.

    Returns:
        The weights. The classifier is left out if its number of classes differs, or if `other_classes` is given.

    Raises:
        ArchitectureError: There is no such file, or it holds no weights, or those of another architecture. The message
            names the first entry that does not fit.
    """
    file = weights_file(Path(path))
    content = _content(file)
    network = architecture.build()
    own = network.state_dict()
    state = _for_network(_decoded(_without_prefix(_state_of(content, file), file), architecture), own)
    left_out = other_classes
    for key in [key for key in own if key.startswith(_CLASSIFIER)]:
        theirs = state.get(key)
        if theirs is not None and theirs.shape[:1] != own[key].shape[:1] and theirs.shape[1:] == own[key].shape[1:]:
            left_out = f"it has {theirs.shape[0]} classes, and the data have {own[key].shape[0]}"
    if left_out is not None:
        state = {key: value for key, value in state.items() if not key.startswith(_CLASSIFIER)}
    for key, value in state.items():
        if (fault := fault_of(value)) is not None:
            raise ArchitectureError(f"{file}: the weights '{clipped(key)}' {fault}")
    rest = {key: own[key] for key in own if left_out is not None and key.startswith(_CLASSIFIER)}
    try:
        load_into(network, {**state, **rest})
    except InputError as reason:
        raise ArchitectureError(str(reason).replace("the given weights", str(file), 1)) from reason
    return Inherited(state, left_out)


def _content(file: Path) -> Any:
    if not file.is_file():
        raise ArchitectureError(
            f"there is no file of weights {file}; give a weights.pt or checkpoint.ckpt of a search or retraining"
        )
    try:
        return read_torch_file(file)
    except DamagedFileError as reason:
        raise ArchitectureError(
            f"{file} holds no weights, or it is truncated or damaged; give a weights.pt"
        ) from reason


def _state_of(content: Any, file: Path) -> Mapping[str, Any]:
    """Find the state dict in the content of a file."""
    average = next(_averages(content), None)  # what a retraining evaluates, if it keeps one
    if average is not None:
        return average
    if isinstance(content, Mapping):
        named = {key: value for key, value in content.items() if isinstance(key, str)}
        if not content or any(isinstance(value, Tensor) for value in named.values()):
            return {key: value for key, value in named.items() if isinstance(value, Tensor)}
        for key in _WRAPPERS:
            inner = named.get(key)
            if isinstance(inner, Mapping):
                return _state_of(inner, file)
    raise ArchitectureError(
        f"{file} is not a state dict of tensors; give the weights.pt or checkpoint.ckpt of a search or retraining, or "
        "a file with a state dict"
    )


def _averages(content: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the moving averages of the weights in a checkpoint of a retraining."""
    callbacks = content.get("callbacks") if isinstance(content, Mapping) else None
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        average = state.get("average") if isinstance(state, Mapping) else None
        if isinstance(average, Mapping):
            yield {key: value for key, value in average.items() if key != "n_averaged" and isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """Remove what stands before the names of a network's weights, such as `module.`, and all other entries."""
    prefixes = [str(key)[: -len(_FIRST)] for key in state if f".{key}".endswith(f".{_FIRST}")]
    if not prefixes:
        raise ArchitectureError(
            f"{file} are weights of another architecture: they lack '{_FIRST}'; give a weights.pt of a search or "
            "retraining"
        )
    # A network that learns from a teacher, or keeps a moving average, may have been saved with it.
    own = [prefix for prefix in prefixes if not _OTHERS & set(prefix.lower().split("."))] or prefixes
    found = [{key[len(p) :]: value for key, value in state.items() if key.startswith(p)} for p in own]
    if any(
        one.keys() != found[0].keys() or not all(_equal(one[key], found[0][key]) for key in one) for one in found[1:]
    ):
        raise ArchitectureError(
            f"{file} has the weights of {len(own)} networks, with the prefixes {clipped(', '.join(map(repr, own)))}; "
            "save the state dict of one of them"
        )
    return found[0]


def _equal(first: Any, second: Any) -> bool:
    return first is second or (
        isinstance(first, Tensor)
        and isinstance(second, Tensor)
        and first.shape == second.shape
        and torch.equal(first, second)
    )


def _decoded(state: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Of the weights of a supernet, take those of one architecture. Other weights are returned unchanged."""
    spec = architecture.require_spec()
    found = dict(state)
    for number, layer in enumerate(spec.layers, start=1):  # block 0 is the first one, which is not searched
        place = f"blocks.{number}."
        of_layer = [key for key in state if key.startswith(place)]
        if not any(key.startswith(f"{place}{name}.") for key in of_layer for name in layer.names):
            continue
        chosen = f"{place}{architecture.choices[layer.label]}."
        for key in of_layer:
            del found[key]
            if key.startswith(chosen):
                found[place + key[len(chosen) :]] = state[key]
    return found


def _for_network(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fill in the counters of batch-norms, which old files lack."""
    missing = {key: torch.zeros_like(value) for key, value in own.items() if key.endswith(_COUNT) and key not in state}
    return {**state, **missing}


def supernet_state(path: Path) -> dict[str, Tensor]:
    """Read the weights of the supernet in the checkpoint of a search, without a prefix.

    Raises:
        ArchitectureError: The file holds no weights of a network of this package.
    """
    return _without_prefix(_state_of(_content(path), path), path)
