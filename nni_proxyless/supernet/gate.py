"""The gate of one label: its architecture parameters, its sampled paths, and the gated sum of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SpaceError
from . import binary_gates as gates
from .binary_gates import PathSample
from .outputs import UnlikeOutputsError, check_alike


class UnlikePathsError(SpaceError):
    """The outputs of two paths of a gate cannot be exchanged.

    Args:
        message: What is wrong, in one line.
        gate: Gate of the paths.
        site: Module in which the gate was asked; `None` if it is not known.
    """

    def __init__(self, message: str, gate: Gate, site: nn.Module | None) -> None:
        super().__init__(message)
        self.gate = gate
        self.site = site


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
        heard: Whether the loss has had a nonzero gradient with respect to the gates. It may be reset to `False`.
        probing: Whether the next forward pass runs all paths without gradients, to check that they are alike.
        probed: Identities of the modules in which the paths have been checked since `probing` was set.
        running: Path that a region of this label is running right now (`regions.py`); `None` outside of such a region.
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
        self.probed: set[int] = set()
        self.running: int | None = None

    @property
    def current(self) -> int:
        """Path that a module without paths of its own takes: the running one in a region, otherwise the active one."""
        return self.sample.active if self.running is None else self.running

    @property
    def value(self) -> Any:
        """Candidate of the current path."""
        return self.candidates[self.current]

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

    def forward(self, run_path: Callable[[int], Any], site: nn.Module | None = None) -> Any:
        """Run the active path with its autograd graph and the other sampled paths without (paper section 3.2.1).

        Without gradients, as inside an inactive path of another gate, only the active path runs. Inside a region of
        this label, only the path that the region runs.

        Args:
            run_path: Function that runs the path of a given index and returns its output.
            site: Module that asks. A check of all paths runs only once for each module.

        Raises:
            SpaceError: The outputs of two candidates cannot be exchanged, or no gradient can reach one of them.
        """
        if self.running is not None:
            return run_path(self.running)
        if self.probing:
            if site is not None and id(site) in self.probed:
                return run_path(self.kept[0])
            return self._probe(run_path, site)
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
            raise self._unlike(reason, self.sample.paths, site) from reason

    def run_as(self, index: int, run: Callable[[], Any]) -> Any:
        """Call a function, within which all modules of this label take one path."""
        before = self.running
        self.running = index
        try:
            return run()
        finally:
            self.running = before

    def _hear(self, gradient: Tensor) -> None:
        self.heard = self.heard or bool((gradient != 0).any())

    def _probe(self, run_path: Callable[[int], Any], site: nn.Module | None) -> Any:
        """Run every path once, compare its output with that of the first path, and return the latter."""
        if site is not None:
            self.probed.add(id(site))
        first, *others = self.kept
        output = run_path(first)
        for path in [first, *others]:
            try:
                with torch.no_grad():
                    check_alike([output] if path == first else [output, run_path(path)])
            except UnlikeOutputsError as reason:
                raise self._unlike(reason, (first, path), site) from reason
        return output

    def _unlike(self, reason: UnlikeOutputsError, paths: Sequence[int], site: nn.Module | None) -> SpaceError:
        names = [f"candidate '{self.candidates[paths[i]]}'" for i in reason.paths]
        return UnlikePathsError(f"choice '{self.label}': {reason.named(names)}", self, site)


@contextmanager
def probing(gates_of: Iterable[Gate]) -> Iterator[None]:
    """Context manager within which gates run all of their paths and compare the outputs; see `Gate.probing`."""
    listed = list(gates_of)
    for gate in listed:
        gate.probing = True
        gate.probed.clear()
    try:
        yield
    finally:
        for gate in listed:
            gate.probing = False
