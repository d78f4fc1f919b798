"""Running a single network of a supernet with the supernet's weights.

This works for the supernets of all strategies, including NNI's, because their modules derive from LayerChoice,
InputChoice and Repeat and contain the candidates. No module is copied or rebuilt. NNI's `freeze`, in contrast, gives
some constant modules new weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Mutable
from nni.nas.nn.pytorch import InputChoice, LayerChoice, Repeat
from nni.nas.nn.pytorch.choice import ChosenInputs
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.proxyless import ProxylessMixedLayer
from torch import nn

from ..errors import SpaceError
from .binary_gates import PathSample
from .gate import Gate
from .gated import GatedModule
from .gated_values import gates_read_by


@contextmanager
def single_path(supernet: nn.Module, sample: Mapping[str, Any]) -> Iterator[None]:
    """Context manager within which a supernet computes the output of one network.

    Args:
        supernet: Mutated model space; its modules are restored at the end.
        sample: NNI sample, a mapping from labels to candidates.

    Raises:
        SpaceError: A mutated module of the supernet is not a LayerChoice, InputChoice or Repeat.
    """
    changed = []
    sampled: dict[Gate, PathSample] = {}
    try:
        for name, module in supernet.named_modules():
            if gates := module.own_gates() if isinstance(module, GatedModule) else gates_read_by(module):
                sampled |= {gate: gate.sample for gate in gates if gate not in sampled}
            elif isinstance(module, BaseSuperNetModule) and not _belongs_to_repeat(module, sample):
                module.forward = _forward_of(name, module, sample)
                changed.append(module)
        for gate in sampled:
            gate.sample = PathSample(gate.candidates.index(sample[gate.label]))
        yield
    finally:
        for module in changed:
            del module.forward
        for gate, before in sampled.items():
            gate.sample = before


def _belongs_to_repeat(module: nn.Module, sample: Mapping[str, Any]) -> bool:
    """Whether NNI's Proxyless made this choice between a block and an identity from a block of a Repeat."""
    return isinstance(module, ProxylessMixedLayer) and module.label not in sample


def _forward_of(name: str, module: Any, sample: Mapping[str, Any]) -> Any:
    if isinstance(module, LayerChoice):
        return module[sample[module.label]].__call__
    if isinstance(module, InputChoice):
        chosen = sample[module.label]
        indices = chosen if isinstance(chosen, list) else [chosen]
        return lambda inputs: ChosenInputs._tensor_reduction(module.reduction, [inputs[i] for i in indices])
    if isinstance(module, Repeat):
        depth = module.depth_choice.freeze(dict(sample)) if isinstance(module.depth_choice, Mutable) else None
        blocks = [
            block["1"] if isinstance(block, ProxylessMixedLayer) and block.label not in sample else block
            for block in list(module.blocks)[:depth]
        ]

        def run(x: Any) -> Any:
            for block in blocks:
                x = block(x)
            return x

        return run
    raise SpaceError(
        f"'{name}' is a {type(module).__name__}, which cannot be run as part of a single network; finalists can be "
        "compared in spaces of LayerChoice, InputChoice and Repeat only: set finalists=1"
    )
