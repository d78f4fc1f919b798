"""Binary gates: path sampling, gradients, and rescaling of α after a two-path step. All are functions of tensors.

| symbol | here | meaning | shape |
|---|---|---|---|
| α | `alpha` | architecture parameters of one layer | (num_candidates,) |
| α / τ | `logits` | α over the temperature τ, which is 1 without sharpening; -inf if pruned | (num_candidates,) |
| p | `probs` | path probabilities, softmax(α / τ) (paper section 3.2) | (num_candidates,) |
| g | `gates` | binary gates, one-hot, P(g_i = 1) = p_i (eq. 2) | (number of sampled paths,) |
| o_j | `outputs[j]` | output of path j | any tensors, of the same structure and shape for all paths |

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

from ..errors import SpaceError
from .outputs import check_alike, is_differentiable, rebuild


@dataclass(frozen=True)
class PathSample:
    """The paths of a layer that run in one step.

    Attributes:
        active: Path whose gate is 1.
        inactive: Other paths that run, without an autograd graph, for the gradients of their gates. There are none in
            a weight step and with `reinforce`, one with `two_path`, and all others that are not pruned with `full`.
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
    """Return the path whose turn it is in a step.

    A round has as many steps as there are paths, and each path runs once in it. Each round has its own random order
    (FairNAS, Chu et al., ICCV 2021, section 3.2: strict fairness).

    Args:
        logits: Logits α / τ, shape (num_candidates,). Pruned paths (-inf) get no turn.
        step: Number of the step, counted from 0.
        seed: Seed of the random orders; it should differ between layers.
    """
    kept = torch.isfinite(logits.detach()).nonzero().flatten().tolist()
    round_number, turn = divmod(step, len(kept))
    # The order follows from the seed and the number of the round, so a search can be resumed without any stored state.
    drawn = np.random.default_rng([seed, round_number]).permutation(len(kept))
    return PathSample(kept[int(drawn[turn])])


def sample_all(logits: Tensor, generator: torch.Generator | None = None) -> PathSample:
    """Draw the active path from p. All other paths that are not pruned run as inactive paths."""
    active = sample_path(logits, generator).active
    kept = torch.isfinite(logits.detach()).nonzero().flatten().tolist()
    return PathSample(active, tuple(i for i in kept if i != active))


def sample_pair(logits: Tensor, generator: torch.Generator | None = None) -> PathSample:
    """Draw two paths without replacement from p, then the active one of them from p renormalised (section 3.2.1).

    If only one path is left, there is no pair, and that path is active.
    """
    logits = logits.detach()
    probs = path_probs(logits)
    first = _draw(probs, 1, generator)[0]
    # The second path is drawn from the others only. The logits are masked rather than p, because the other
    # probabilities may underflow to 0 when p has collapsed onto the first path.
    masked = logits.clone()
    masked[first] = -torch.inf
    if not bool(torch.isfinite(masked).any()):
        return PathSample(first)
    pair = (first, _draw(path_probs(masked), 1, generator)[0])
    active = _draw(path_probs(logits[list(pair)]), 1, generator)[0]
    return PathSample(pair[active], (pair[1 - active],))


def straight_through_gates(logits: Tensor, sample: PathSample) -> Tensor:
    """Gates of the sampled paths, the active path first: a one-hot value with the gradient of p (eq. 4).

    Here p is renormalised over the sampled paths. If all paths are sampled, that is p itself. By the chain rule, the
    softmax then yields ∂L/∂α_i = Σ_j ∂L/∂g_j p_j (δ_ij - p_i) / τ.

    Returns:
        Gates of shape (number of sampled paths,).
    """
    gates: Tensor = _StraightThroughGates.apply(logits, sample.paths)
    return gates


class _StraightThroughGates(torch.autograd.Function):
    """Value and gradient of `straight_through_gates`, as one autograd function.

    An architecture step evaluates it in each layer, on only a few numbers. One function takes half the time of separate
    operations.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, paths: tuple[int, ...]) -> Tensor:
        ctx.index = torch.tensor(paths, device=logits.device)
        ctx.save_for_backward(torch.softmax(logits[ctx.index], dim=0))
        ctx.count = len(logits)
        one_hot = logits.new_zeros(len(paths))
        one_hot[0] = 1.0
        return one_hot

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        _refuse_second_gradient()
        (probs,) = ctx.saved_tensors
        grads = probs * (grad - torch.dot(probs, grad))
        return grads.new_zeros(ctx.count).index_copy_(0, ctx.index, grads), None


def conditional_probs(logits: Tensor, sample: PathSample) -> Tensor:
    """Path probabilities for a cost: the value of p with the gradient of p renormalised over the sampled paths.

    A two-path step only compares the two paths of its pair, and the gradient of the loss is taken through
    q, the softmax of the pair's logits. The latency must be weighed in the same comparison, so its gradient is also
    taken through q. The value of E[latency] is still computed with the full p. If all paths are sampled, the result is
    p itself.

    Returns:
        Probabilities of shape (num_candidates,).
    """
    probs = path_probs(logits)
    index = torch.tensor(sample.paths, device=logits.device)
    pair = path_probs(logits[index])
    return probs.detach().index_add(0, index, pair - pair.detach())


def gated_sum(gates: Tensor, outputs: Sequence[Any]) -> Any:
    """Gated sum y = Σ_j g_j o_j for one-hot gates: the value of `outputs[0]`, with the gradients of all gates.

    Args:
        gates: One-hot gates of shape (number of sampled paths,), of which the first is 1; see
            `straight_through_gates`.
        outputs: Outputs of the sampled paths, the active one first. Each output is a tensor, or a nested structure of
            tuples, lists, dictionaries or dataclasses of tensors, which is the same for all paths. Gradients only flow
            into the first output, because the other gates are 0.

    Returns:
        The active output, with new floating-point and complex tensors that may be modified in place.

    Raises:
        UnlikeOutputsError: The outputs have different structures or shapes, or no gradient can reach one of them.
    """
    first = outputs[0]
    if all(isinstance(o, Tensor) and o.is_floating_point() and o.shape == first.shape for o in outputs):
        return _GatedSum.apply(gates, *outputs)
    leaves = zip(*check_alike(outputs), strict=True)
    mixed = (_GatedSum.apply(gates, *of) if is_differentiable(of[0]) else of[0] for of in leaves)
    return rebuild(first, mixed)


class _GatedSum(torch.autograd.Function):
    """y = o_0, and ∂L/∂g_j = ⟨∂L/∂y, o_j - o_0⟩.

    Adding the same number to every ∂L/∂g_j does not change eq. 4, because Σ_j p_j (δ_ij - p_i) = 0. So the gradients of
    the gates are computed relative to the active gate's gradient. Then only the differences o_j - o_0 are saved for the
    backward pass, not o_0 itself, and the gradients suffer no cancellation.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, active: Tensor, *inactive: Tensor) -> Tensor:
        ctx.save_for_backward(*(other - active for other in inactive))
        ctx.gates_like = (gates.dtype, gates.device)
        return active.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_gradient()
        differences: tuple[Tensor, ...] = ctx.saved_tensors
        grad_gates = None
        if ctx.needs_input_grad[0]:
            dtype, device = ctx.gates_like
            products = [_inner(grad_output, difference) for difference in differences]
            grad_gates = torch.stack([torch.zeros_like(products[0]), *products]).to(dtype=dtype, device=device)
        return grad_gates, grad_output, *itertools.repeat(None, len(differences))


def _refuse_second_gradient() -> None:
    """Refuse a gradient that is to be differentiated again (`create_graph=True`).

    It depends on the gates by the inactive paths' own gradients, which would need their graphs.

    Raises:
        SpaceError: It is.
    """
    if torch.is_grad_enabled():
        raise SpaceError(
            "the loss contains a gradient of the network (create_graph=True), of which the gates have no gradient; set "
            "arch_gradient to reinforce"
        )


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner product ⟨a, b⟩, a real scalar, summed in single precision or better.

    For complex numbers it is Re Σ conj(a) b: torch's gradient of a real loss in z = x + iy is ∂L/∂x + i ∂L/∂y.
    """
    if a.is_complex() or b.is_complex():
        return torch.sum(a.conj() * b).real
    if a.device.type == "cpu" and a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            if a.ndim != 4 and memory_format is torch.channels_last:
                break
            if a.is_contiguous(memory_format=memory_format) and b.is_contiguous(memory_format=memory_format):
                # A dot product reads both tensors once. `sum(a * b)` would also write and read the product.
                return torch.dot(a.as_strided((a.numel(),), (1,)), b.as_strided((b.numel(),), (1,)))
    return torch.sum(a * b, dtype=torch.float32)


@torch.no_grad()
def rescale_pairs(
    alphas: Sequence[Tensor], before: Sequence[Tensor], samples: Sequence[PathSample], temperature: float = 1.0
) -> None:
    """Shift the pair's α of each layer in place, so that all other paths keep their probabilities (section 3.2.1).

    The shift is τ (log Σ_pair exp(α_before / τ) - log Σ_pair exp(α_after / τ)), the same for both paths of the pair.
    The α of all other paths are reset to their values before the step, because an optimizer with momentum or weight
    decay may have moved them.

    Each layer has only a few numbers, so plain Python arithmetic takes a tenth of the time of tensor operations.

    Args:
        alphas: Architecture parameters of each layer after the optimizer's step, shape (num_candidates,) each; changed
            in place. The number of candidates may differ between layers.
        before: Architecture parameters of each layer before that step, of the same shapes.
        samples: Paths that were sampled in each layer.
        temperature: Softmax temperature τ of all layers.
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
    """Differentiable log-probability of the active path, which REINFORCE weights by the reward (section 3.3.2)."""
    return torch.log_softmax(logits, 0)[sample.active]


def _draw(probs: Tensor, count: int, generator: torch.Generator | None) -> list[int]:
    # Always drawn on the CPU, so that all ranks and devices draw the same paths from the same seed.
    drawn: list[int] = torch.multinomial(probs.cpu().float(), count, generator=generator).tolist()
    return drawn
