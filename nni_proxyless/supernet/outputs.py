"""Outputs of the candidates of one layer: nested structures of tensors, and whether they are alike.

A structure may consist of tuples, lists, dictionaries, named tuples, dataclasses and everything else that pytree of
torch knows. Its leaves are tensors and plain constants.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


class UnlikeOutputsError(TypeError):
    """The outputs of two candidates differ in structure or shape, or an output cannot be searched.

    Args:
        template: What is wrong, with `{0}` and `{1}` in place of the candidates.
        paths: Positions of these candidates in the list of outputs.
    """

    def __init__(self, template: str, *paths: int) -> None:
        self.template = template
        self.paths = paths
        super().__init__(self.named([f"path {path}" for path in paths]))

    def named(self, names: Sequence[str]) -> str:
        """Return the message with names of the candidates in place of `{0}` and `{1}`."""
        text = self.template
        for number, name in enumerate(names):
            text = text.replace(f"{{{number}}}", name)
        return text


def is_differentiable(leaf: Any) -> bool:
    """Whether a leaf is a tensor of floating-point or complex numbers."""
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


def flatten(output: Any) -> tuple[list[Any], Any]:
    """Return the leaves of an output, and a description of its structure that can be compared."""
    parts, spec = tree_flatten(output)
    leaves: list[Any] = []
    inner: list[Any] = []
    for part in parts:
        if _is_dataclass(part):
            below, structure = flatten(_values(part))
            leaves += below
            inner.append((type(part), structure))
        else:
            leaves.append(part)
            inner.append(None)
    return leaves, (spec, tuple(inner))


def rebuild(like: Any, leaves: Iterator[Any]) -> Any:
    """Return an output of the same structure as another one, with new leaves.

    Args:
        like: Output whose structure is used. It does not change.
        leaves: New leaves, in the order in which `flatten` returns those of `like`.
    """
    parts, spec = tree_flatten(like)
    made = []
    for part in parts:
        if _is_dataclass(part):
            new = copy.copy(part)
            for field, value in zip(dataclasses.fields(part), rebuild(_values(part), leaves), strict=True):
                object.__setattr__(new, field.name, value)  # also if the dataclass is frozen
            made.append(new)
        else:
            made.append(next(leaves))
    return tree_unflatten(made, spec)


def check_alike(outputs: Sequence[Any]) -> list[list[Any]]:
    """Check that outputs can be exchanged for each other and that a gradient can reach each of them.

    Args:
        outputs: Outputs of several candidates for the same input.

    Returns:
        The leaves of each output.

    Raises:
        UnlikeOutputsError: An output holds an object whose tensors cannot be found, or has no tensor of floating-point
            or complex numbers, or the structures or shapes of two outputs differ.
    """
    flat = [flatten(output) for output in outputs]
    for path, (leaves, _) in enumerate(flat):
        for leaf in leaves:
            if not isinstance(leaf, (Tensor, *_CONSTANTS)):
                raise UnlikeOutputsError(
                    f"{{0}} returns an object of type {type(leaf).__name__}, whose tensors cannot be found; return "
                    "tensors, or tuples, lists, dictionaries or dataclasses of tensors",
                    path,
                )
        if not any(map(is_differentiable, leaves)):
            raise UnlikeOutputsError(
                f"{{0}} returns {describe(outputs[path])}, which has no gradient; return at least one tensor of "
                "floating-point numbers",
                path,
            )
    first, structure = flat[0]
    for path, (leaves, other) in enumerate(flat[1:], start=1):
        same = other == structure and all(_shape(a) == _shape(b) for a, b in zip(first, leaves, strict=True))
        if not same:
            raise UnlikeOutputsError(
                f"{{0}} returns {describe(outputs[0])}, but {{1}} returns {describe(outputs[path])}; all candidates of "
                "a layer must return the same structure and shapes",
                0,
                path,
            )
    return [leaves for leaves, _ in flat]


def describe(output: Any) -> str:
    """Describe an output in a message: the shapes of its tensors, in its structure."""
    if isinstance(output, Tensor):
        kind = "" if output.is_floating_point() else f"{str(output.dtype).removeprefix('torch.')} "
        return f"a {kind}tensor of shape {tuple(output.shape)}"
    if output is None:
        return "None"
    if isinstance(output, dict):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in output.items()) + "}"
    if isinstance(output, (tuple, list)):
        return f"{type(output).__name__}(" + ", ".join(map(describe, output)) + ")"
    if _is_dataclass(output):
        values = zip(dataclasses.fields(output), _values(output), strict=True)
        return f"{type(output).__name__}(" + ", ".join(f"{f.name}={describe(v)}" for f, v in values) + ")"
    return f"an object of type {type(output).__name__}"


def _shape(leaf: Any) -> Any:
    """Shape of a leaf that is exchanged; the same for all leaves that are taken from the active path alone."""
    return leaf.shape if is_differentiable(leaf) else None


def _is_dataclass(part: Any) -> bool:
    return dataclasses.is_dataclass(part) and not isinstance(part, type)


def _values(part: Any) -> list[Any]:
    return [getattr(part, field.name) for field in dataclasses.fields(part)]
