"""Gated versions of NNI's LayerChoice, InputChoice and Repeat.

Every label of a model space has one `Gate`, which holds the architecture parameters of the label and the paths sampled
for the current step. All modules with that label share the gate, so they always take the same path (paper section 3.2).
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
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..errors import SpaceError
from .binary_gates import PathSample
from .candidates import path_candidates, probs_by_candidate, searched
from .gate import Gate, probing

__all__ = [
    "Gate", "GatedInputChoice", "GatedLayerChoice", "GatedModule", "GatedRepeat", "decoded_state", "make_gates",
    "mutate_choice", "probing",
]  # fmt: skip


class GatedModule(BaseSuperNetModule):
    """The interface that NNI requires of a supernet's modules, implemented with the gates of its labels."""

    _gate: Gate

    def own_gates(self) -> tuple[Gate, ...]:
        """Return the gates on which this module itself depends, apart from modules inside it."""
        return (self._gate,)

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Draw one path of each gate (NNI hook). A label that is already in `memo` takes its path from there."""
        drawn = {}
        for gate in self.own_gates():
            if gate.label in memo:
                gate.sample = PathSample(gate.candidates.index(memo[gate.label]))
            else:
                gate.draw_path()
                drawn[gate.label] = gate.candidates[gate.sample.active]
        return drawn

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return the most likely candidate of each gate (NNI hook). The gates do not change."""
        wanted = [gate for gate in self.own_gates() if gate.label not in memo]
        return {gate.label: gate.candidates[int(gate.alpha.argmax())] for gate in wanted}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return the probability of each candidate as a Python number, for logging (NNI hook)."""
        wanted = [gate for gate in self.own_gates() if gate.label not in memo]
        return {gate.label: probs_by_candidate(gate.candidates, gate.probs().tolist()) for gate in wanted}


class GatedLayerChoice(LayerChoice, GatedModule):
    """LayerChoice that runs only the sampled candidates.

    Candidates may take any arguments and return any nested structure of tensors.
    """

    def __init__(self, choice: LayerChoice, gate: Gate) -> None:
        super().__init__(choice.candidates, label=choice.label)
        self._gate = gate

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        def run_path(index: int) -> Any:
            name = self.names[index]
            inputs = args[0] if len(args) == 1 and not kwargs else (args, kwargs)
            with input_unchanged(inputs, self._gate, f"candidate '{name}' of '{self.label}'"):
                return self[name](*args, **kwargs)

        return self._gate(run_path, self)


class GatedInputChoice(InputChoice, GatedModule):
    """InputChoice whose paths are the subsets of inputs that it may choose."""

    def __init__(self, choice: InputChoice, gate: Gate) -> None:
        super().__init__(choice.n_candidates, choice.n_chosen, choice.reduction, label=choice.label)
        self._gate = gate

    def forward(self, candidate_inputs: list[Tensor]) -> Any:
        def run_path(index: int) -> Any:
            chosen = [candidate_inputs[i] for i in self._gate.candidates[index]]
            return ChosenInputs._tensor_reduction(self.reduction, chosen)

        return self._gate(run_path, self)


class GatedRepeat(Repeat, GatedModule):
    """Repeat whose paths are its possible depths. A path runs that many of the first blocks."""

    def __init__(self, repeat: Repeat, gate: Gate) -> None:
        super().__init__(list(repeat.blocks), repeat.depth_choice)
        self._gate = gate
        self._depths = [self.depth_choice.freeze({gate.label: value}) for value in gate.candidates]

    def forward(self, x: Any) -> Any:
        reached: dict[int, Any] = {0: x}  # output by depth: a deeper path continues from a shallower path's output

        def run_path(index: int) -> Any:
            depth = self._depths[index]
            start = max(d for d in reached if d <= depth)
            y = reached[start]
            for d in range(start, depth):
                with input_unchanged(y, self._gate, f"block {d} of '{self._gate.label}'"):
                    y = self.blocks[d](y)
                reached[d + 1] = y
            return y

        return self._gate(run_path, self)


@contextmanager
def input_unchanged(inputs: Any, gate: Gate, what: str) -> Iterator[None]:
    """Raise an error if a path changes its input in place while other paths of the step read the same input.

    Raises:
        SpaceError: The path changes its input in place. Weight steps run a single path, so they allow this.
    """
    if not gate.sample.inactive:
        yield
        return
    leaves = [inputs] if isinstance(inputs, Tensor) else tree_flatten(inputs)[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    before = [tensor._version for tensor in tensors]
    yield
    if [tensor._version for tensor in tensors] != before:
        raise SpaceError(
            f"{what} changes its input in place, which other paths of an architecture step read as well; "
            "begin it with an operation that is not in-place, as with ReLU(inplace=False)"
        )


def make_gates(mutables: Mapping[str, Mutable]) -> dict[str, Gate]:
    """Create one gate for each label of a model space, in sorted order, which is the same in every process.

    Args:
        mutables: Mapping from labels to mutables, as returned by NNI's `ModelSpace.simplify()`.

    Raises:
        SpaceError: A mutable is not a choice from a finite list.
    """
    # NNI's labels are instances of its own class. A plain `str` keeps that class out of checkpoints.
    return {str(label): Gate(str(label), path_candidates(mutables[label])) for label in sorted(searched(mutables))}


def mutate_choice(
    module: nn.Module, _name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace a LayerChoice, an InputChoice or a Repeat with one choice of depth by its gated version (NNI hook).

    Instances of their subclasses are not replaced.

    Args:
        module: Module that may be replaced.
        _name: Path of the module in the model.
        memo: Mapping from labels to gates.

    Raises:
        SpaceError: A candidate is `None`, or the outputs of an InputChoice have different shapes.
    """
    if isinstance(module, GatedModule):
        return True
    if type(module) is LayerChoice:
        choice: Any = module
        if missing := [candidate for candidate in choice.names if choice[candidate] is None]:
            raise SpaceError(
                f"candidate '{missing[0]}' of choice '{module.label}' is None, which cannot be run; use nn.Identity() "
                "to skip the layer, or a module that returns zeros to drop it"
            )
        return GatedLayerChoice(module, memo[str(module.label)])
    if type(module) is InputChoice:
        if module.n_chosen is None and module.reduction in ("none", "concat"):
            raise SpaceError(
                f"InputChoice '{module.label}' with reduction '{module.reduction}' and any number of inputs has "
                "outputs of different shapes; use sum or mean, or set n_chosen"
            )
        return GatedInputChoice(module, memo[str(module.label)])
    if type(module) is Repeat and isinstance(module.depth_choice, Mutable):
        labels = list(module.depth_choice.simplify())
        return GatedRepeat(module, memo[str(labels[0])]) if len(labels) == 1 else None
    return None


def decoded_state(supernet: nn.Module, choices: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict of one architecture: copies of the supernet's weights on the paths that were chosen.

    The names are those of the frozen model: `blocks.3.k5_e6.conv_dw.weight` becomes `blocks.3.conv_dw.weight`.

    Args:
        supernet: Mutated model space that contains no choices other than LayerChoices, none nested in another.
        choices: Mapping from the label of each LayerChoice to the chosen candidate.
    """
    chosen: dict[str, str] = {}  # prefix of a LayerChoice to the prefix of its chosen candidate
    for name, module in supernet.named_modules():
        if isinstance(module, LayerChoice):
            chosen[f"{name}."] = f"{name}.{choices[module.label]}."
    state = {}
    for key, value in supernet.state_dict().items():
        prefix = next((prefix for prefix in chosen if key.startswith(prefix)), None)
        if prefix is None:
            state[key] = value.detach().cpu().clone()
        elif key.startswith(chosen[prefix]):
            state[prefix + key[len(chosen[prefix]) :]] = value.detach().cpu().clone()
    return state
