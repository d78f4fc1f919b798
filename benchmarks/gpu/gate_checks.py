"""Checks of gates and supernets on a device, against exact enumeration and against the CPU in double precision.

Each function returns an error, which must not exceed what `correctness.py` allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cost.supernets import gates_by_label
from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.supernet.binary_gates import (
    PathSample,
    gated_sum,
    rescale_pairs,
    sample_all,
    sample_pair,
    sample_path,
    straight_through_gates,
)
from nni_proxyless.supernet.entangling import entangle
from nni_proxyless.supernet.freezing import WeightFreezer
from nni_proxyless.supernet.gated import GatedLayerChoice
from nni_proxyless.training.sgd import make_sgd

N = 4  # paths of each layer of `TwoLayers`
PAIRS = ((3, 1), (0, 2))
NO_GRADIENTS = ("loss", "moved buffers")


class TwoLayers:
    """Network y = B_j A_i x with the loss c·y, in which the loss of every pair of paths is known exactly."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x, self.c = torch.randn(2, 5, dtype=torch.float64, generator=generator)
        self.layers = torch.randn(2, N, 5, 5, dtype=torch.float64, generator=generator)
        self.alphas = torch.randn(2, N, dtype=torch.float64, generator=generator)

    def losses(self) -> Tensor:
        """Loss of paths i and j, shape (N, N), on the CPU in double precision."""
        first, second = self.layers
        return torch.einsum("c,jcd,ide,e->ij", self.c, second, first, self.x)

    def gated(self, samples: Sequence[PathSample], device: str, dtype: torch.dtype) -> Tensor:
        """Gradients of both α by the gates on a device, shape (2, N)."""
        x, c, layers = (value.to(device, dtype) for value in (self.x, self.c, self.layers))
        leaves = [alpha.to(device, dtype).requires_grad_() for alpha in self.alphas]
        y = x
        for weights, alpha, sample in zip(layers, leaves, samples, strict=True):
            outputs = [weights[k] @ (y if k == sample.active else y.detach()) for k in sample.paths]
            y = gated_sum(straight_through_gates(alpha, sample), outputs)
        (c @ y).backward()
        return torch.stack([leaf.grad.double().cpu() for leaf in leaves if leaf.grad is not None])


def full_gradient(device: str, dtype: torch.dtype) -> float:
    """Expectation of the gradient over all gate outcomes, against the gradient of the expected loss (eq. 4)."""
    net = TwoLayers()
    exact = _gradient(net, lambda alpha: torch.softmax(alpha, 0))
    p, q = torch.softmax(net.alphas, 1)
    estimate = torch.zeros_like(exact)
    for i, j in itertools.product(range(N), repeat=2):
        samples = [PathSample(k, tuple(m for m in range(N) if m != k)) for k in (i, j)]
        estimate += p[i] * q[j] * net.gated(samples, device, dtype)
    return relative(estimate, exact)


def two_path_gradient(device: str, dtype: torch.dtype) -> float:
    """The same for given pairs of paths, whose active paths are drawn from p renormalised over each pair."""
    net = TwoLayers()

    def of_pair(alpha: Tensor, pair: tuple[int, int]) -> Tensor:
        return torch.zeros(N, dtype=alpha.dtype).index_put((torch.tensor(pair),), torch.softmax(alpha[list(pair)], 0))

    exact = _gradient(net, *(lambda alpha, pair=pair: of_pair(alpha, pair) for pair in PAIRS))  # type: ignore[misc]
    weights = [of_pair(alpha, pair) for alpha, pair in zip(net.alphas, PAIRS, strict=True)]
    estimate = torch.zeros_like(exact)
    for active in itertools.product((0, 1), repeat=2):
        samples = [PathSample(pair[a], (pair[1 - a],)) for pair, a in zip(PAIRS, active, strict=True)]
        weight = weights[0][samples[0].active] * weights[1][samples[1].active]
        estimate += weight * net.gated(samples, device, dtype)
    return relative(estimate, exact)


def _gradient(net: TwoLayers, *probs: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of p·M·q in both α, where `probs` makes p and q of them."""
    alphas = net.alphas.clone().requires_grad_()
    first, second = probs * 2 if len(probs) == 1 else probs
    (first(alphas[0]) @ net.losses() @ second(alphas[1])).backward()
    assert alphas.grad is not None
    return alphas.grad


def rescaling(device: str) -> float:
    """Largest change of the probabilities outside the pair, and of their sum, in a two-path step."""
    before = torch.randn(6, device=device, generator=torch.Generator(device).manual_seed(0))
    alpha = before.clone()
    pair = PathSample(4, (1,))
    alpha[[4, 1]] += torch.tensor([0.3, -0.2], device=device)
    alpha[0] += 0.5  # as an optimizer with momentum may do
    rescale_pairs([alpha], [before], [pair])
    was, now = (torch.softmax(value.double().cpu(), 0) for value in (before, alpha))
    others = [0, 2, 3, 5]
    return float((was - now)[others].abs().max())


def drawn_paths(device: str) -> float:
    """Number of draws from the same seed that differ from the CPU's."""
    logits = torch.randn(7, generator=torch.Generator().manual_seed(1))
    differing = 0
    for draw in (sample_path, sample_pair, sample_all):
        here, there = (torch.Generator().manual_seed(2) for _ in range(2))
        for _ in range(50):
            differing += draw(logits, here) != draw(logits.to(device), there)
    return float(differing)


class SupernetChecks:
    """Checks of a supernet's steps.

    Args:
        spec: Space of the supernet.
        images: Number of images of a step.
        device: Device that is checked.
    """

    def __init__(self, spec: SpaceSpec, images: int, device: str) -> None:
        self.spec = spec
        self.images = images
        self.device = device
        self._exact: dict[tuple[str, bool], dict[str, Tensor]] = {}

    def supernet(self, entangled: bool, device: str, dtype: torch.dtype, memory_format: Any) -> Any:
        """A supernet with the same weights on every device."""
        torch.manual_seed(0)
        mutated = ProxylessNAS().mutate_model(MobileNetV2Space(self.spec, entangled))
        made = mutated.to(device=device, dtype=dtype, memory_format=memory_format)
        entangle(made)
        generator = torch.Generator().manual_seed(4)
        for gate in gates_by_label(made).values():
            gate.alpha.data = torch.randn(gate.num_candidates, generator=generator).to(device, dtype)
        return made

    def batch(self, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The same random images and labels on every device."""
        generator = torch.Generator().manual_seed(5)
        images = torch.randn(self.images, *self.spec.input_shape, dtype=torch.float64, generator=generator)
        return images.to(device, dtype), torch.arange(self.images, device=device) % self.spec.classes

    def gradients(
        self,
        step: str,
        entangled: bool,
        device: str,
        dtype: torch.dtype,
        *,
        memory_format: Any = torch.contiguous_format,
        autocast: torch.dtype | None = None,
    ) -> dict[str, Tensor]:
        """Loss, number of changed buffer elements, and gradients of one step by name, in double precision on the CPU.

        With autocast, the loss is multiplied by 1024, so that no gradient underflows.
        """
        made = self.supernet(entangled, device, dtype, memory_format)
        choose(made, step)
        images, labels = self.batch(device, dtype)
        buffers = {name: buffer.clone() for name, buffer in made.named_buffers()}

        def backward() -> Tensor:
            with torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None):
                loss = nn.functional.cross_entropy(made(images.contiguous(memory_format=memory_format)), labels)
            (loss if autocast is None else 1024 * loss).backward()
            return loss.detach()

        if step == "weight":
            loss = backward()
        else:
            with WeightFreezer(made).frozen():
                loss = backward()
        found = {name: p.grad for name, p in made.named_parameters() if p.grad is not None}
        moved = sum(float((buffer != buffers[name]).sum()) for name, buffer in made.named_buffers())
        return {
            "loss": loss.double().cpu(),
            "moved buffers": torch.tensor(moved),
            **{name: gradient.double().cpu() for name, gradient in found.items()},
        }

    def against_cpu(self, step: str, entangled: bool, dtype: torch.dtype, **settings: Any) -> float:
        """Error of the loss and of the gradients of a step, relative to the CPU in double precision."""
        if (step, entangled) not in self._exact:
            self._exact[step, entangled] = self.gradients(step, entangled, "cpu", torch.float64)
        exact = self._exact[step, entangled]
        found = self.gradients(step, entangled, self.device, dtype, **settings)
        if found.keys() != exact.keys():
            raise AssertionError(f"gradients of other parameters: {sorted(found.keys() ^ exact.keys())[:5]}")
        names = [name for name in exact if name not in NO_GRADIENTS]
        gradients = [torch.cat([of[name].flatten() for name in names]) for of in (found, exact)]
        return max(relative(found["loss"], exact["loss"]), relative(*gradients))

    def autocast(self, kind: torch.dtype) -> float:
        """1 - cosine between the gradients of α with and without autocast in a `full` step."""
        exact, found = (self.gradients("full", False, self.device, torch.float32, autocast=one) for one in (None, kind))
        names = [name for name in exact if name.endswith("alpha")]
        a, b = (torch.cat([of[name] for name in names]) for of in (exact, found))
        return 1.0 - float(torch.cosine_similarity(a, b, dim=0))

    def frozen(self) -> float:
        """Number of weights with a gradient, and of buffer elements that change, in a `full` step."""
        found = self.gradients("full", False, self.device, torch.float32)
        weights = [name for name in found if name not in NO_GRADIENTS and not name.endswith("alpha")]
        return len(weights) + float(found["moved buffers"])

    def inactive(self) -> float:
        """Number of architecture parameters and of inactive paths' weights that have a gradient in a weight step."""
        made = self.supernet(False, self.device, torch.float32, torch.contiguous_format)
        choose(made, "weight")
        made(self.batch(self.device, torch.float32)[0]).sum().backward()
        wrong = [gate.alpha for gate in gates_by_label(made).values()]
        for layer in (module for module in made.modules() if isinstance(module, GatedLayerChoice)):
            gate = gates_by_label(made)[layer.label]
            for index, name in enumerate(map(str, gate.candidates)):
                if index != gate.sample.active:
                    wrong += getattr(layer, name).parameters()
        if len(wrong) < 2 * len(gates_by_label(made)):
            raise AssertionError("the supernet has no inactive weights")
        return float(sum(p.grad is not None for p in wrong))

    def entangled_step(self) -> float:
        """Error of entangled weights after two SGD steps, relative to the CPU. They must still be shared."""
        found = []
        for device in ("cpu", self.device):
            made = self.supernet(True, device, torch.float64, torch.contiguous_format)
            alphas = {id(gate.alpha) for gate in gates_by_label(made).values()}
            weights = [p for p in made.parameters() if id(p) not in alphas]
            optimizer = make_sgd(weights, 0.05, 0.9, 1e-4, overlapping=True)
            for _ in range(2):
                choose(made, "weight")
                optimizer.zero_grad()
                made(self.batch(device, torch.float64)[0]).square().mean().backward()
                optimizer.step()
            if len({p.untyped_storage().data_ptr() for p in weights}) == len(weights):
                raise AssertionError("the candidates do not share their weights")
            found.append(torch.cat([p.detach().cpu().flatten() for p in weights]))
        return relative(found[1], found[0])


def choose(made: nn.Module, step: str) -> None:
    """Make the second candidate of each layer active, and add the inactive paths that a kind of step needs."""
    for gate in gates_by_label(made).values():
        others = tuple(i for i in range(gate.num_candidates) if i != 1)
        gate.sample = PathSample(1, {"weight": (), "two_path": others[-1:], "full": others}[step])


def relative(found: Tensor, exact: Tensor) -> float:
    """‖found - exact‖ / ‖exact‖."""
    return float((found.double() - exact.double()).norm() / exact.double().norm())
