"""Description of what a module computes, equal for modules that compute the same function of input and weights."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ..latency.calls import FloatInput, with_tensors

_OF_TORCH = frozenset(nn.Module().__dict__)
_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_plain, value))
    return isinstance(value, _PLAIN) or (isinstance(value, dict) and all(map(_plain, (*value, *value.values()))))


def described(module: nn.Module) -> tuple[Hashable, bool]:
    """Describe what a module computes, and say whether the description is complete.

    It has the type, all attributes that are plain values, the shapes of the tensors, and the same of the modules
    inside. With other attributes, such as functions, two modules of the same description may differ.
    """
    complete = True
    attributes = []
    for key, value in sorted(module.__dict__.items()):
        if key in _OF_TORCH or key in ("_args", "trace_args", "trace_kwargs", "_mutables", "training", "_label_scope"):
            continue
        if _plain(value):
            attributes.append((key, repr(value)))
        elif isinstance(value, Tensor):
            attributes.append((key, str(tuple(value.shape))))
        else:
            complete = False
            attributes.append((key, type(value).__qualname__))
    tensors = [
        (key, tuple(value.shape), str(value.dtype))
        for key, value in (*module._parameters.items(), *module._buffers.items())
        if value is not None
    ]
    children = []
    for key, child in module._modules.items():
        if child is not None:
            inner, known = described(child)
            complete = complete and known
            children.append((key, inner))
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    return (kind, id(type(module)), tuple(attributes), tuple(tensors), tuple(children)), complete


def shapes_of(arguments: Any) -> str:
    """Describe the arguments of a call, with shapes and number formats instead of tensors."""
    shapes = with_tensors(
        arguments,
        lambda value: (
            ("float", value.shape, value.dtype)
            if isinstance(value, FloatInput)
            else ("tensor", tuple(value.shape), value.dtype)
        ),
    )
    return repr(shapes)
