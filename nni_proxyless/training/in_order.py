"""Sequentials that train faster on the CPU: batch-norms are combined with neighbouring convolutions and ReLU6.

`nn.Sequential` passes an output to its next child and to nothing else. So a batch-norm may overwrite the output of a
convolution if no autograd graph is built, and batch-norm and ReLU6 may be one function (`norms.py`). The children stay
as they are. Children with hooks are called as usual.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from .depthwise import DepthwiseConv2d
from .norms import norm_relu6, normalise_, normalises_in_place, trains_as_one

_CONVOLUTIONS = (nn.Conv2d, DepthwiseConv2d)


class InOrder(nn.Sequential):
    """Sequential that combines its batch-norms with their neighbours; also added to the classes of other Sequentials.

    Shape: those of its children.
    """

    def forward(self, input: Any) -> Any:
        return self._run(input, None)

    forward.runs_children_in_order = True  # type: ignore[attr-defined]  # as `nn.Sequential.forward` does (regions.py)

    def _run(self, x: Any, behind: nn.Module | None) -> Any:
        """Run the children.

        Args:
            x: Input of the first child.
            behind: Module that alone gets the output; `None` if that is not known.
        """
        children = [*self._modules.values(), behind]
        number, fresh = 0, False  # whether `x` is the output of a convolution, which nothing else reads
        while number < len(children) - 1:
            child, following = children[number], children[number + 1]
            number += 1
            assert child is not None
            plain = _is_unmodified(child)
            if plain and type(child) is nn.BatchNorm2d and isinstance(x, Tensor):
                joins = type(following) is nn.ReLU6 and number < len(children) - 1 and _is_unmodified(following)
                if fresh and normalises_in_place(child, x):
                    x = normalise_(child, x)
                    if joins:
                        x.clamp_(0.0, 6.0)
                        number += 1
                elif joins and trains_as_one(child, x):
                    number += 1
                    x = norm_relu6(child, x, masks_in_place=_begins_with_convolution(children[number]))
                else:
                    x = child(x)
                fresh = False
            else:
                if plain and isinstance(child, InOrder) and _only_runs_children(child):
                    x = child._run(x, following)
                else:
                    x = child(x)
                fresh = plain and type(child) in _CONVOLUTIONS
        return x

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain = type(self).__dict__.get("_plain_class")
        made = super().__reduce_ex__(protocol)
        return made if plain is None else (_new, (plain,), *made[2:])


def join_norms(model: nn.Module) -> None:
    """Make all Sequentials of a model, also of subclasses, combine batch-norms with their neighbours, in place."""
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Sequential) and not isinstance(module, InOrder) and not hasattr(module, "freeze"):
            children = list(module._modules.values())
            pairs = itertools.pairwise(children)
            if any(type(a) in _CONVOLUTIONS and type(b) is nn.BatchNorm2d for a, b in pairs) or any(
                isinstance(child, InOrder) for child in children
            ):
                try:
                    module.__class__ = _in_order(type(module))
                except TypeError:  # a class whose layout or bases do not allow it
                    continue


_KINDS: dict[type[nn.Sequential], type[nn.Sequential]] = {nn.Sequential: InOrder}  # class to its faster subclass


def _in_order(kind: type[nn.Sequential]) -> type[nn.Sequential]:
    if kind not in _KINDS:
        # Behind the class itself, so that a `forward` of its own that calls `super().forward` finds this one.
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _KINDS[kind] = type(kind.__name__, (kind, InOrder), {**names, "_plain_class": kind})
    return _KINDS[kind]


def _new(kind: type[nn.Sequential]) -> nn.Module:
    made = _in_order(kind)
    return made.__new__(made)


def _is_unmodified(module: nn.Module) -> bool:
    """Whether a module has no hooks, and no `forward` other than that of its class."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def _only_runs_children(module: nn.Module) -> bool:
    return isinstance(module, InOrder) and type(module).forward is InOrder.forward


def _begins_with_convolution(module: nn.Module | None) -> bool:
    """Whether a module does nothing else with its input than to give it to a convolution."""
    while module is not None and _is_unmodified(module):
        if type(module) in _CONVOLUTIONS:
            return True
        if not _only_runs_children(module):
            return False
        module = next(iter(module._modules.values()), None)
    return False
