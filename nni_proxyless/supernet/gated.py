"""Gated versions of NNI's LayerChoice, InputChoice and Repeat.

Every label of a model space has one `Gate`, which holds the architecture parameters of the label and the paths sampled
for the current step. All modules with that label share the gate, so they always take the same path (paper section 3.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.mutable import Categorical, CategoricalMultiple, Mutable
from nni.nas.nn.pytorch import InputChoice, LayerChoice, Repeat
from nni.nas.nn.pytorch.choice import ChosenInputs
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from ..errors import SpaceError
from . import gates
from .gates import PathSample

MAX_INPUT_SUBSETS = 256
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
    """

    def __init__(self, label: str, candidates: Sequence[Any]) -> None:
        super().__init__()
        self.label = label
        self.candidates = tuple(candidates)
        self.alpha = nn.Parameter(torch.zeros(len(self.candidates)))
        self.temperature = 1.0
        self.sample = PathSample(0)

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

        Args:
            run_path: Function that runs the path of a given index and returns its output.
        """
        active = run_path(self.sample.active)
        if not self.sample.inactive:
            return active
        with torch.no_grad():
            inactive = [run_path(index) for index in self.sample.inactive]
        return gates.gated_sum(gates.straight_through_gates(self.logits(), self.sample), [active, *inactive])


class _GatedModule(BaseSuperNetModule):
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


class GatedLayerChoice(LayerChoice, _GatedModule):
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


class GatedInputChoice(InputChoice, _GatedModule):
    """InputChoice whose paths are the subsets of inputs that it may choose."""

    def __init__(self, choice: InputChoice, gate: Gate) -> None:
        super().__init__(choice.n_candidates, choice.n_chosen, choice.reduction, label=choice.label)
        self._gate = gate

    def forward(self, candidate_inputs: list[Tensor]) -> Any:
        def run_path(index: int) -> Any:
            chosen = [candidate_inputs[i] for i in self._gate.candidates[index]]
            return ChosenInputs._tensor_reduction(self.reduction, chosen)

        return self._gate(run_path)


class GatedRepeat(Repeat, _GatedModule):
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


def path_candidates(mutable: Mutable) -> list[Any]:
    """Return the values that a sample may assign to the label of a mutable. Each value is one path.

    Raises:
        SpaceError: The mutable is not categorical, or it has too many subsets to search each as a path.
    """
    if isinstance(mutable, Categorical):
        return list(mutable.values)
    if isinstance(mutable, CategoricalMultiple):
        n = len(mutable.values)
        sizes = range(1, n + 1) if mutable.n_chosen is None else (mutable.n_chosen,)
        subsets = (list(s) for size in sizes for s in itertools.combinations(mutable.values, size))
        listed = list(itertools.islice(subsets, MAX_INPUT_SUBSETS + 1))
        if len(listed) > MAX_INPUT_SUBSETS:
            raise SpaceError(
                f"InputChoice '{mutable.label}' of {n} inputs has more than {MAX_INPUT_SUBSETS} subsets to choose; "
                "give it fewer inputs or a smaller n_chosen"
            )
        return listed
    raise SpaceError(
        f"'{getattr(mutable, 'label', mutable)}' is a {type(mutable).__name__}; ProxylessNAS searches choices "
        "from finite lists only (LayerChoice, InputChoice, Repeat)"
    )


def probs_by_candidate(candidates: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    """Map candidates to values, with keys in NNI's form: the number of a single input, a tuple of several inputs."""

    def key(candidate: Any) -> Any:
        if isinstance(candidate, list):
            return candidate[0] if len(candidate) == 1 else tuple(candidate)
        return candidate

    return {key(candidate): value for candidate, value in zip(candidates, values, strict=True)}


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
    if isinstance(module, _GatedModule):
        return True
    if type(module) is LayerChoice:
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
