"""Gated versions of NNI's LayerChoice, InputChoice and Repeat.

Every label of a model space has one `Gate`, which holds the architecture parameters of the label and the paths sampled
for the current step. All modules with that label share the gate, so they always take the same path (paper section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.mutable import Mutable
from nni.nas.nn.pytorch import InputChoice, LayerChoice, Repeat
from nni.nas.nn.pytorch.choice import ChosenInputs
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..errors import SpaceError
from . import gates
from .candidates import path_candidates, probs_by_candidate
from .gates import PathSample
from .outputs import UnlikeOutputsError, check_alike

_SAMPLERS: dict[str, Callable[[Tensor, torch.Generator | None], PathSample]] = {
    "two_path": gates.sample_pair,
    "full": gates.sample_all,
    "reinforce": gates.sample_path,
}


class Gate(nn.Module):
    """The architecture parameters of one label, and its sampled paths.

    Attributes:
        label: Label of the mutable.
        candidates: Value that each path stands for in an NNI sample, in the order of `alpha`.
        alpha: Architecture parameters α, shape (num_candidates,). They start at 0: all paths are equally likely.
        temperature: Softmax temperature τ. Below 1, the probabilities are sharper than softmax(α).
        sample: Paths sampled for the current step.
        asked: Whether the gates have been part of a graph of the loss.
        heard: Whether the loss has had a gradient in the gates that is not zero. It may be set back to `False`.
        probing: Whether the next forward pass runs all paths without gradients, to check that they are alike.
    """

    def __init__(self, label: str, candidates: Sequence[Any]) -> None:
        super().__init__()
        self.label = label
        self.candidates = tuple(candidates)
        self.alpha = nn.Parameter(torch.zeros(len(self.candidates)))
        self.temperature = 1.0
        self.sample = PathSample(0)
        self.asked = False
        self.heard = False
        self.probing = False

    @property
    def num_candidates(self) -> int:
        return len(self.candidates)

    @property
    def kept(self) -> list[int]:
        """Indices of the paths that are not pruned."""
        return [i for i, value in enumerate(self.alpha.detach().tolist()) if value > float("-inf")]

    def prune(self, paths: Sequence[int]) -> None:
        """Remove paths permanently: their probability becomes 0.

        Their modules remain in the supernet until `pruning.free_pruned` removes them.
        """
        with torch.no_grad():
            self.alpha[list(paths)] = -torch.inf

    def logits(self) -> Tensor:
        """Logits α / τ, shape (num_candidates,), differentiable; -inf for a pruned path."""
        return self.alpha if self.temperature == 1.0 else self.alpha / self.temperature

    def probs(self) -> Tensor:
        """Path probabilities softmax(α / τ), shape (num_candidates,), differentiable."""
        return gates.path_probs(self.logits())

    def draw_path(self, generator: torch.Generator | None = None) -> None:
        """Draw one path at random, for a weight step."""
        self.sample = gates.sample_path(self.logits(), generator)

    def draw_in_turn(self, step: int, seed: int) -> None:
        """Select the path whose turn it is, for a weight step; see `gates.fair_path`."""
        self.sample = gates.fair_path(self.logits(), step, seed)

    def draw_for_gradient(self, mode: str, generator: torch.Generator | None = None) -> None:
        """Draw the paths of an architecture step: two (`two_path`), all (`full`) or one (`reinforce`)."""
        self.sample = _SAMPLERS[mode](self.logits(), generator)

    def forward(self, run_path: Callable[[int], Any]) -> Any:
        """Run the active path with its autograd graph and the other sampled paths without (paper section 3.2.1).

        Without gradients, as inside an inactive path of another gate, only the active path runs.

        Args:
            run_path: Function that runs the path of a given index and returns its output.

        Raises:
            SpaceError: The outputs of two candidates cannot be exchanged, or no gradient can reach one of them.
        """
        if self.probing:
            return self._probe(run_path)
        active = run_path(self.sample.active)
        if not self.sample.inactive or not torch.is_grad_enabled():
            return active
        with torch.no_grad():
            inactive = [run_path(index) for index in self.sample.inactive]
        opened = gates.straight_through_gates(self.logits(), self.sample)
        if not self.heard and opened.requires_grad:
            self.asked = True
            opened.register_hook(self._hear)  # type: ignore[no-untyped-call]
        try:
            return gates.gated_sum(opened, [active, *inactive])
        except UnlikeOutputsError as reason:
            raise self._unlike(reason, self.sample.paths) from reason

    def _hear(self, gradient: Tensor) -> None:
        self.heard = self.heard or bool((gradient != 0).any())

    def _probe(self, run_path: Callable[[int], Any]) -> Any:
        """Run every path once, compare its output with that of the first path, and return the latter."""
        first, *others = self.kept
        output = run_path(first)
        for path in [first, *others]:
            try:
                with torch.no_grad():
                    check_alike([output] if path == first else [output, run_path(path)])
            except UnlikeOutputsError as reason:
                raise self._unlike(reason, (first, path)) from reason
        return output

    def _unlike(self, reason: UnlikeOutputsError, paths: Sequence[int]) -> SpaceError:
        names = [f"candidate '{self.candidates[paths[i]]}'" for i in reason.paths]
        return SpaceError(f"choice '{self.label}': {reason.named(names)}")


@contextmanager
def probing(gates_of: Iterable[Gate]) -> Iterator[None]:
    """Context manager within which gates run all of their paths and compare the outputs; see `Gate.probing`."""
    listed = list(gates_of)
    for gate in listed:
        gate.probing = True
    try:
        yield
    finally:
        for gate in listed:
            gate.probing = False


class GatedModule(BaseSuperNetModule):
    """The interface that NNI requires of a supernet's modules, implemented with the gate."""

    _gate: Gate

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Draw one path (NNI hook). A label that is already in `memo` takes its path from there."""
        if self._gate.label in memo:
            self._gate.sample = PathSample(self._gate.candidates.index(memo[self._gate.label]))
            return {}
        self._gate.draw_path()
        return {self._gate.label: self._gate.candidates[self._gate.sample.active]}

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return the most likely candidate (NNI hook). The gate does not change."""
        if self._gate.label in memo:
            return {}
        return {self._gate.label: self._gate.candidates[int(self._gate.alpha.argmax())]}

    def export_probs(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return the probability of each candidate as a Python number, for logging (NNI hook)."""
        if self._gate.label in memo:
            return {}
        return {self._gate.label: probs_by_candidate(self._gate.candidates, self._gate.probs().tolist())}


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
            with _input_unchanged(inputs, self._gate, f"candidate '{name}' of '{self.label}'"):
                return self[name](*args, **kwargs)

        return self._gate(run_path)


class GatedInputChoice(InputChoice, GatedModule):
    """InputChoice whose paths are the subsets of inputs that it may choose."""

    def __init__(self, choice: InputChoice, gate: Gate) -> None:
        super().__init__(choice.n_candidates, choice.n_chosen, choice.reduction, label=choice.label)
        self._gate = gate

    def forward(self, candidate_inputs: list[Tensor]) -> Any:
        def run_path(index: int) -> Any:
            chosen = [candidate_inputs[i] for i in self._gate.candidates[index]]
            return ChosenInputs._tensor_reduction(self.reduction, chosen)

        return self._gate(run_path)


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
                with _input_unchanged(y, self._gate, f"block {d} of '{self._gate.label}'"):
                    y = self.blocks[d](y)
                reached[d + 1] = y
            return y

        return self._gate(run_path)


@contextmanager
def _input_unchanged(inputs: Any, gate: Gate, what: str) -> Iterator[None]:
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
    return {str(label): Gate(str(label), path_candidates(mutables[label])) for label in sorted(mutables)}


def mutate_choice(
    module: nn.Module, name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace a LayerChoice, InputChoice or mutable Repeat by its gated version (NNI mutation hook).

    Instances of their subclasses are not replaced.

    Args:
        module: Module that may be replaced.
        name: Path of the module in the model.
        memo: Mapping from labels to gates.

    Raises:
        SpaceError: The depth of a Repeat depends on several labels, or the outputs of an InputChoice have different
            shapes.
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
        varies = module.n_chosen is None
        if module.reduction == "none" or (varies and module.reduction == "concat"):
            raise SpaceError(
                f"InputChoice '{module.label}' with reduction '{module.reduction}'"
                f"{' and any number of inputs' if varies else ''} has outputs of different shapes; use sum or mean"
            )
        return GatedInputChoice(module, memo[str(module.label)])
    if type(module) is Repeat and isinstance(module.depth_choice, Mutable):
        labels = list(module.depth_choice.simplify())
        if len(labels) != 1:
            raise SpaceError(
                f"Repeat '{name}': its depth depends on {len(labels)} labels {labels}; only one is supported"
            )
        return GatedRepeat(module, memo[labels[0]])
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
