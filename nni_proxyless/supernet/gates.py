"""Binary gates: sampling, their gradient, and rescaling after a two-path step. Pure functions of tensors.

| symbol | here | meaning | shape |
|---|---|---|---|
| α | `alpha` | architecture parameters of one layer | (num_candidates,) |
| α / τ | `logits` | the same over the temperature τ, 1 but for sharpening; -inf if pruned | (num_candidates,) |
| p | `probs` | path probabilities, softmax(α / τ) (paper section 3.2) | (num_candidates,) |
| g | `gates` | binary gates, one-hot, P(g_i = 1) = p_i (eq. 2) | (number of sampled paths,) |
| o_j | `outputs[j]` | output of path j | any tensors, alike for all paths |

The layer's output is y = Σ_j g_j o_j(x) (eq. 3), which is the active path's output. Its gradients (eq. 4) are
∂L/∂g_j = ⟨∂L/∂y, o_j⟩ and ∂L/∂α_i = Σ_j ∂L/∂g_j · p_j (δ_ij - p_i).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten


@dataclass(frozen=True)
class PathSample:
    """Which paths of a layer run.

    Attributes:
        active: The path whose gate is 1.
        inactive: Paths that run too, without a graph, because their gates' gradients are wanted; none in a weight
            step, one with `two_path`, all others with `full`.
    """

    active: int
    inactive: tuple[int, ...] = ()

    @property
    def paths(self) -> tuple[int, ...]:
        return (self.active, *self.inactive)


def path_probs(logits: Tensor) -> Tensor:
    """Path probabilities p = softmax(α / τ), shape (num_candidates,) (section 3.2)."""
    return torch.softmax(logits, dim=0)


def entropy(probs: Tensor) -> Tensor:
    """Entropy of a distribution in nats, a scalar."""
    total: Tensor = torch.special.entr(probs).sum()
    return total


def sample_path(logits: Tensor, generator: torch.Generator | None = None) -> PathSample:
    """Draw one path from p (eq. 2)."""
    return PathSample(_draw(path_probs(logits.detach()), 1, generator)[0])


def fair_path(logits: Tensor, step: int, seed: int) -> PathSample:
    """The path of a step when all take turns: in each round of as many steps as there are paths, each runs once.

    The order is drawn anew for each round (FairNAS, Chu et al., ICCV 2021, section 3.2: strict fairness).

    Args:
        logits: Pruned paths, -inf, have no turn.
        step: Number of the step.
        seed: Of the orders; another one for each layer.
    """
    kept = torch.isfinite(logits.detach()).nonzero().flatten().tolist()
    round_number, turn = divmod(step, len(kept))
    # A round's order follows from its number alone, so that an interrupted search needs to remember nothing.
    drawn = np.random.default_rng([seed, round_number]).permutation(len(kept))
    return PathSample(kept[int(drawn[turn])])


def sample_all(logits: Tensor, generator: torch.Generator | None = None) -> PathSample:
    """Draw the active path from p; all others that are not pruned run as inactive paths."""
    active = sample_path(logits, generator).active
    kept = torch.isfinite(logits.detach()).nonzero().flatten().tolist()
    return PathSample(active, tuple(i for i in kept if i != active))


def sample_pair(logits: Tensor, generator: torch.Generator | None = None) -> PathSample:
    """Draw two paths without replacement from p, then the active one from p renormalised (section 3.2.1).

    A layer of a single candidate has no pair; its only path is active.
    """
    logits = logits.detach()
    probs = path_probs(logits)
    first = _draw(probs, 1, generator)[0]
    # Without replacement: the second is drawn from the others alone. Masking logits, not p, keeps this well
    # defined when p has all but collapsed on the first.
    masked = logits.clone()
    masked[first] = -torch.inf
    if not bool(torch.isfinite(masked).any()):
        return PathSample(first)
    pair = (first, _draw(path_probs(masked), 1, generator)[0])
    active = _draw(path_probs(logits[list(pair)]), 1, generator)[0]
    return PathSample(pair[active], (pair[1 - active],))


def straight_through_gates(logits: Tensor, sample: PathSample) -> Tensor:
    """Gates of the sampled paths, active first: the value is one-hot, the gradient that of p (eq. 4).

    p is renormalised over the sampled paths; where all are sampled that is p itself. By the chain rule the
    softmax then yields ∂L/∂α_i = Σ_j ∂L/∂g_j p_j (δ_ij - p_i) / τ.

    Returns:
        Shape (number of sampled paths,).
    """
    gates: Tensor = _StraightThroughGates.apply(logits, sample.paths)
    return gates


class _StraightThroughGates(torch.autograd.Function):
    """A step has one of these in each layer, all of a few numbers: one function takes half the time of its parts."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, paths: tuple[int, ...]) -> Tensor:
        ctx.index = torch.tensor(paths, device=logits.device)
        ctx.save_for_backward(torch.softmax(logits[ctx.index], dim=0))
        ctx.count = len(logits)
        one_hot = logits.new_zeros(len(paths))
        one_hot[0] = 1.0
        return one_hot

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (probs,) = ctx.saved_tensors
        grads = probs * (grad - torch.dot(probs, grad))
        return grads.new_zeros(ctx.count).index_copy_(0, ctx.index, grads), None


def conditional_probs(logits: Tensor, sample: PathSample) -> Tensor:
    """Path probabilities for a cost: the value is p, the gradient that of p renormalised over the sampled paths.

    A two-path step compares the two paths of the pair and nothing else. The latency has to be weighed in the
    same comparison as the loss, so its gradient is that of q = softmax of the pair's logits, to which the loss's
    gradient belongs too; E[lat] keeps its value under the full p. With all paths sampled this is just p.

    Returns:
        Shape (num_candidates,).
    """
    probs = path_probs(logits)
    index = torch.tensor(sample.paths, device=logits.device)
    pair = path_probs(logits[index])
    return probs.detach().index_add(0, index, pair - pair.detach())


def gated_sum(gates: Tensor, outputs: Sequence[Any]) -> Any:
    """Y = Σ_j g_j o_j for one-hot gates: the value of `outputs[0]`, with the gradient of every gate.

    Args:
        gates: Shape (number of sampled paths,), one-hot at the first; see `straight_through_gates`.
        outputs: Outputs of the sampled paths, the active one first: tensors, or alike (nested) tuples, lists or
            dictionaries of tensors. Gradients flow into the first one only, as the others' gates are 0.

    Returns:
        The active output, as a new tensor that may be modified in place.
    """
    if all(isinstance(output, Tensor) and output.is_floating_point() for output in outputs):
        return _GatedSum.apply(gates, *outputs)
    structure = tree_flatten(outputs[0])[1]
    leaves = [tree_flatten(output)[0] for output in outputs]
    if any(tree_flatten(output)[1] != structure for output in outputs[1:]):
        raise TypeError("candidate paths of one layer return different structures; they must be alike")
    results = []
    for tensors in zip(*leaves, strict=True):
        if isinstance(tensors[0], Tensor) and tensors[0].is_floating_point():
            results.append(_GatedSum.apply(gates, *tensors))
        else:
            results.append(tensors[0])
    return tree_unflatten(results, structure)


class _GatedSum(torch.autograd.Function):
    """y = o_0, and ∂L/∂g_j = ⟨∂L/∂y, o_j - o_0⟩.

    Eq. 4 is unchanged when the same number is added to every ∂L/∂g_j, since Σ_j p_j (δ_ij - p_i) = 0. So the
    gates' gradients are given relative to the active one's: its output needs no saving, only the differences do
    (none for a path that ended in the same place), and they are found without cancellation.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, active: Tensor, *inactive: Tensor) -> Tensor:
        ctx.save_for_backward(*(other - active for other in inactive))
        ctx.gates_like = (gates.dtype, gates.device)
        return active.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        differences: tuple[Tensor, ...] = ctx.saved_tensors
        grad_gates = None
        if ctx.needs_input_grad[0]:
            dtype, device = ctx.gates_like
            products = [_inner(grad_output, difference) for difference in differences]
            grad_gates = torch.stack([torch.zeros_like(products[0]), *products]).to(dtype=dtype, device=device)
        return grad_gates, grad_output, *itertools.repeat(None, len(differences))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩, a scalar, summed in single precision or better."""
    if a.device.type == "cpu" and a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            if a.ndim != 4 and memory_format is torch.channels_last:
                break
            if a.is_contiguous(memory_format=memory_format) and b.is_contiguous(memory_format=memory_format):
                # One pass over both instead of three over the product as well.
                return torch.dot(a.as_strided((a.numel(),), (1,)), b.as_strided((b.numel(),), (1,)))
    return torch.sum(a * b, dtype=torch.float32)


def rescale_pair(alpha: Tensor, before: Tensor, sample: PathSample, temperature: float = 1.0) -> None:
    """Shift the pair's α, in place, so that the probabilities of all other paths are as before (section 3.2.1).

    The shift is τ (log Σ_pair exp(α_before / τ) - log Σ_pair exp(α_after / τ)), the same for both. Parameters of
    other paths are put back, should an optimizer with momentum or decay have moved them.

    Args:
        alpha: Parameters after the optimizer's step, shape (num_candidates,); changed.
        before: Parameters before it, shape (num_candidates,).
        sample: The paths that were sampled.
        temperature: τ.
    """
    rescale_pairs([alpha], [before], [sample], temperature)


@torch.no_grad()
def rescale_pairs(
    alphas: Sequence[Tensor], before: Sequence[Tensor], samples: Sequence[PathSample], temperature: float = 1.0
) -> None:
    """`rescale_pair` for all layers at once, which differ in number of candidates but share τ.

    A few numbers for each layer: plain arithmetic takes a tenth of the time of tensor operations on each.
    """
    now, then = (torch.cat([alpha.detach() for alpha in of]).tolist() for of in (alphas, before))
    sizes = [len(alpha) for alpha in alphas]
    shifted = list(then)
    for first, sample in zip(itertools.accumulate([0, *sizes]), samples, strict=False):
        pair = [first + path for path in sample.paths]
        shift = temperature * (_log_sum_exp(then, pair, temperature) - _log_sum_exp(now, pair, temperature))
        for path in pair:
            shifted[path] = now[path] + shift
    moved = torch.split(torch.tensor(shifted, dtype=alphas[0].dtype, device=alphas[0].device), sizes)
    torch._foreach_copy_([alpha.detach() for alpha in alphas], list(moved))


def _log_sum_exp(values: Sequence[float], chosen: Sequence[int], temperature: float) -> float:
    largest = max(values[i] for i in chosen) / temperature
    return largest + math.log(sum(math.exp(values[i] / temperature - largest) for i in chosen))


def log_likelihood(logits: Tensor, sample: PathSample) -> Tensor:
    """Log p of the active path, a scalar, differentiable: what REINFORCE weighs by the reward (section 3.3.2)."""
    return torch.log_softmax(logits, 0)[sample.active]


def _draw(probs: Tensor, count: int, generator: torch.Generator | None) -> list[int]:
    # On the CPU whatever the model runs on: all ranks and devices draw the same paths from the same seed.
    drawn: list[int] = torch.multinomial(probs.cpu().float(), count, generator=generator).tolist()
    return drawn
