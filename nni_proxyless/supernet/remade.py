"""Refusal of what modules that are made anew would lose: hooks, parametrizations and tied parameters.

For each network, NNI makes a new module in the place of a module with choices. A supernet takes over the weights and
plain attributes of the original module (`sliced.py`), but nothing else that was changed after its construction.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, ParametrizedModule, Repeat
from torch import nn
from torch.nn.utils import parametrize

from ..errors import UnsupportedSpaceError
from .gated_values import becomes_plain

_HOOKS = {
    "_forward_pre_hooks": "a forward pre-hook",
    "_forward_hooks": "a forward hook",
    "_backward_pre_hooks": "a backward pre-hook",
    "_backward_hooks": "a backward hook",
}


def refuse_lost_changes(space: nn.Module) -> None:
    """Refuse a space if a module that is made anew would lose a hook, a parametrization or a tied parameter.

    What a module itself adds in its `__init__` is in the new module, too, and is allowed.

    Args:
        space: Model space that is not mutated yet.

    Raises:
        UnsupportedSpaceError: Something would be lost. The message names it, and the module.
    """
    for name, module in space.named_modules():
        if isinstance(module, (Cell, InputChoice, LayerChoice, Repeat)):
            _refuse_hooks_of_choice(module, name)
        elif isinstance(module, ParametrizedModule) and module.mutables:
            _refuse_additions(module, name)
    _refuse_ties(space)


def _refuse_hooks_of_choice(module: nn.Module, name: str) -> None:
    for attribute, what in _HOOKS.items():
        if getattr(module, attribute):
            raise UnsupportedSpaceError(
                f"module '{name}' is a {type(module).__name__} with {what}, which is not supported: networks have the "
                "chosen modules in its place, without the hook; register the hook on a module that contains it"
            )


def _refuse_additions(module: ParametrizedModule, name: str) -> None:
    found = Counter(_additions(module))
    if not found:
        return
    made = _made_anew(module)
    lost = found if made is None else found - Counter(_additions(made))
    for path, what in lost:
        where = f" on '{path}' inside it" if path else ""
        raise UnsupportedSpaceError(
            f"module '{name}' is a {type(module).__name__} with choices in its arguments and {what}{where}, which is "
            "not supported: each network has a new module in its place, which would lose it; write a "
            "ParametrizedModule that takes the choices, contains the plain module, and adds this in its __init__"
        )


def _additions(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the hooks and parametrizations of a module, each with the path of the part that has it."""
    for path, part in module.named_modules():
        if parametrize.is_parametrized(part):
            for tensor, functions in part.parametrizations.items():
                yield from [(path, f"a parametrization of its {tensor}")] * len(functions)
        for attribute, what in _HOOKS.items():
            for hook in getattr(part, attribute).values():
                yield path, what if inspect.isroutine(hook) else f"{type(hook).__name__} ({what})"
        for tensor, parameter in part._parameters.items():
            for attribute in ("_backward_hooks", "_post_accumulate_grad_hooks"):
                hooks = getattr(parameter, attribute, None) or ()
                yield from [(path, f"a hook of its parameter {tensor}")] * len(hooks)


def _made_anew(module: ParametrizedModule) -> nn.Module | None:
    """Return a new module with the same arguments, as NNI makes it; `None` if it cannot be made."""
    try:
        sample: dict[str, object] = {}
        for mutable in module.mutables:
            mutable.default(sample)
        with torch.random.fork_rng(devices=[]):
            made: nn.Module = module.freeze(sample)
    except Exception:  # such as a class with a parametrized weight, whose __init__ cannot run again
        return None
    return made


def _refuse_ties(space: nn.Module) -> None:
    """Refuse parameters that a module made or copied on its own has in common with others."""
    first: dict[int, tuple[str, str]] = {}
    for name, module in space.named_modules(remove_duplicate=False):
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            path, owner = f"{name}.{key}".lstrip("."), _on_its_own(space, name)
            known, other = first.setdefault(id(parameter), (path, owner))
            if owner != other:
                raise UnsupportedSpaceError(
                    f"'{known}' and '{path}' are the same parameter, which is not supported for the module "
                    f"'{owner or other}': networks have a new module in its place, with a parameter of its own; give "
                    "each module its own parameters, or keep one module in one place and call it twice"
                )


def _on_its_own(space: nn.Module, name: str) -> str:
    """Path of the module around a parameter that is made anew or copied on its own, or ''."""
    found, path, module = "", "", space
    for step in name.split(".") if name else ():
        path, module = f"{path}.{step}".lstrip("."), module._modules[step]  # type: ignore[assignment]
        if isinstance(module, ParametrizedModule):
            if module.mutables:
                return path
            if not becomes_plain(module):
                found = path
    return found
