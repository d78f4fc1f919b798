"""The searches that `search_cost.py` times: our supernet and NNI's, each with its optimizers, without Lightning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from benchmarks.constants import SPACE_OF_THE_PAPER
from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.supernet.binary_gates import PathSample, rescale_pairs
from nni_proxyless.supernet.entangling import entangle
from nni_proxyless.supernet.freezing import WeightFreezer
from nni_proxyless.supernet.gated import Gate
from nni_proxyless.training.sgd import make_sgd

BATCH, SIZE = 16, 96


class Batch:
    """Random images and labels in one memory format, on one device.

    Args:
        memory_format: Memory format of the images and of the networks that see them.
        images: Number of images.
        shape: Channels, height and width of an image.
        classes: Number of classes.
        device: Device of the images and of the networks that see them.
    """

    def __init__(
        self,
        memory_format: Any = torch.channels_last,
        *,
        images: int = BATCH,
        shape: tuple[int, int, int] = (3, SIZE, SIZE),
        classes: int = 1000,
        device: str = "cpu",
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(images, *shape, generator=generator)
        self.memory_format = memory_format
        self.device = device
        self.images = drawn.to(device).contiguous(memory_format=memory_format)
        self.labels = torch.randint(0, classes, (images,), generator=generator).to(device)

    def place(self, network: nn.Module) -> Any:
        """Move a network to the device and the memory format of the images."""
        return network.to(device=self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def loss(self, network: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(network(self.images), self.labels)


class OurSearch:
    """Our supernet with the two optimizers of a search."""

    def __init__(self, space: ModelSpace, batch: Batch) -> None:
        self.batch = batch
        self.supernet = batch.place(ProxylessNAS().mutate_model(space))
        entangle(self.supernet)  # again, because another memory format or device has copied the weights
        self.gates = gates_by_label(self.supernet)
        alphas = [gate.alpha for gate in self.gates.values()]
        known = {id(alpha) for alpha in alphas}
        weights = [p for p in self.supernet.parameters() if id(p) not in known]
        self.weight_optimizer = make_sgd(weights, 0.01, 0.9, overlapping=getattr(self.supernet, "entangled", False))
        self.arch_optimizer = torch.optim.Adam(alphas, 1e-3, betas=(0.0, 0.999), fused=True)
        self.freezer = WeightFreezer(self.supernet)

    def choose(self, choices: Mapping[str, Any], step: str, generator: random.Random) -> None:
        """Make these choices the active paths, and draw the inactive paths that the kind of step needs."""
        for label, gate in self.gates.items():
            active = gate.candidates.index(choices[label])
            others = tuple(i for i in range(gate.num_candidates) if i != active)
            inactive = {"weight": (), "two_path": (generator.choice(others),), "full": others}[step]
            gate.sample = PathSample(active, inactive)

    def step(self, step: str) -> None:
        if step == "weight":
            train_step(lambda: self.batch.loss(self.supernet), self.weight_optimizer)
            return
        before = [gate.alpha.detach().clone() for gate in self.gates.values()]
        with self.freezer.frozen():
            self.arch_optimizer.zero_grad()
            self.batch.loss(self.supernet).backward()
        self.arch_optimizer.step()
        if step == "two_path":
            samples = [gate.sample for gate in self.gates.values()]
            rescale_pairs([gate.alpha for gate in self.gates.values()], before, samples)

    def forward(self, step: str) -> None:
        if step == "weight":
            self.batch.loss(self.supernet)
        else:
            with self.freezer.frozen():
                self.batch.loss(self.supernet)


class NniSearch:
    """One of NNI's supernets, with the optimizers and the order of steps of its DartsLightningModule."""

    def __init__(self, strategy: Any, space: ModelSpace, batch: Batch, as_it_comes: bool = False) -> None:
        self.batch = batch
        self.supernet = batch.place(strategy.mutate_model(space))
        self.choices = [m for m in self.supernet.modules() if hasattr(m, "arch_parameters")]
        alphas = list({p for module in self.choices for p in module.arch_parameters()})
        known = {id(alpha) for alpha in alphas}
        weights = [p for p in self.supernet.parameters() if id(p) not in known]
        self.weight_optimizer = (
            torch.optim.SGD(weights, 0.01, momentum=0.9) if as_it_comes else make_sgd(weights, 0.01, 0.9)
        )
        self.arch_optimizer = torch.optim.Adam(alphas, 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)

    def choose(self, choices: Mapping[str, Any]) -> None:
        for module in self.choices:
            module.resample(dict(choices))

    def step(self, step: str) -> None:
        optimizer = self.weight_optimizer if step == "weight" else self.arch_optimizer
        train_step(lambda: self.batch.loss(self.supernet), optimizer)


class EqualCandidates(ModelSpace):
    """The paper's space with N candidates in each layer, all of the same kernel and expansion."""

    def __init__(self, spec: SpaceSpec, candidates: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [spec.stem.build(spec.norm), spec.first_block.build(spec.norm)]
        for layer in spec.layers:
            operator = layer.candidates["k5_e3"]
            assert operator is not None
            made = {f"c{i}": operator.build(spec.norm) for i in range(candidates)}
            blocks.append(LayerChoice(made, label=layer.label))
        self.blocks = nn.Sequential(*blocks, spec.head.build(spec.norm), spec.classifier.build(spec.norm))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)  # type: ignore[no-any-return]


def gates_by_label(supernet: nn.Module) -> dict[str, Gate]:
    """Label to gate, in the order of labels. Modules with the same label share a gate."""
    gates = [module for module in supernet.modules() if isinstance(module, Gate)]
    return {gate.label: gate for gate in sorted(gates, key=lambda gate: gate.label)}


def paper_space(entangled: bool = False) -> MobileNetV2Space:
    return MobileNetV2Space.from_yaml(SPACE_OF_THE_PAPER, input_size=SIZE, entangled=entangled)


def paper_spec() -> SpaceSpec:
    return SpaceSpec.from_yaml(SPACE_OF_THE_PAPER).with_changes(input_size=SIZE)


def plain_step(network: nn.Module, batch: Batch) -> Callable[[], None]:
    """A training step of a network alone: the unit of all costs."""
    optimizer = make_sgd(network.parameters(), 0.01, 0.9)
    return lambda: train_step(lambda: batch.loss(network), optimizer)


def train_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def seconds(run: Callable[[], Any], device: str = "cpu") -> float:
    """Duration of a call in seconds. On CUDA, it ends when the device has finished."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait until a CUDA device has finished; do nothing for the CPU."""
    if device == "cuda":
        torch.cuda.synchronize()


def saved_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that a forward pass saves for the backward pass; each storage counts once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())
