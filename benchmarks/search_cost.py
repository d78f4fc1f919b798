"""What a search costs, in units of one training step (or epoch) of the sampled network alone.

    .venv/bin/python benchmarks/search_cost.py [--networks 12] [--rounds 5] [--parts steps default growth epoch]

Space `mobilenetv2_imagenet`, 16 images of 96 x 96. All runs of a part are interleaved; of each random network the
median of the rounds is taken, and of those ratios the median over networks with its range.

`steps`   training the network as a plain module, and on the same path the weight and architecture steps of our supernet
          (the architecture steps with every kind of gradient, and candidates with weights of their own and
          entangled) and of NNI's own Proxyless and DARTS, all in one memory
          format: channels_last, which is our default on the CPU, then contiguous, which NNI comes with.
`default` our steps in our default format against NNI's Proxyless as it comes.
`growth`  the same steps with 2 to 12 candidates in each layer, all alike, so that only their number changes.
`epoch`   an epoch of search through Lightning, loaders and logging included, with one `two_path` step for each weight
          step, and as recipes have it, against an epoch of training one network through Lightning.

Activations saved for the backward pass are counted with saved-tensor hooks, each storage once.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from _results import publish
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from nni.nas.strategy import DARTS, Proxyless
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.process_memory import keep_freed_memory
from nni_proxyless.strategies.arch_settings import ARCH_WEIGHT_DECAY
from nni_proxyless.supernet.freezing import WeightFreezer
from nni_proxyless.supernet.gates import PathSample, rescale_pairs
from nni_proxyless.training.image_classification import ImageClassification
from nni_proxyless.training.sgd import make_sgd

BATCH, SIZE = 16, 96
OURS = ("weight", "two_path", "full")
ENTANGLED = "entangled weights"


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def saved_bytes(forward: Callable[[], Any]) -> int:
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())


class Batch:
    """Images and labels in a memory format."""

    def __init__(self, memory_format: Any = torch.channels_last) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
        self.memory_format = memory_format
        self.images = images.contiguous(memory_format=memory_format)
        self.labels = torch.randint(0, 1000, (BATCH,), generator=generator)

    def loss(self, network: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(network(self.images), self.labels)


def train_step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def plain_step(network: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = make_sgd(network.parameters(), 0.01, 0.9)
    return lambda: train_step(lambda: batch.loss(network), optimizer)


class OurSearch:
    """Our supernet with the two optimizers of a search, without Lightning around it."""

    def __init__(self, space: ModelSpace, batch: Batch) -> None:
        self.batch = batch
        strategy = ProxylessNAS()
        self.supernet = strategy.mutate_model(space).to(memory_format=batch.memory_format)
        self.gates = strategy._gates
        alphas = [gate.alpha for gate in self.gates.values()]
        known = {id(alpha) for alpha in alphas}
        weights = [p for p in self.supernet.parameters() if id(p) not in known]
        self.weight_optimizer = make_sgd(weights, 0.01, 0.9)
        self.arch_optimizer = torch.optim.Adam(alphas, 1e-3, betas=(0.0, 0.999), fused=True)
        self.freezer = WeightFreezer(self.supernet)

    def choose(self, choices: Mapping[str, Any], step: str, generator: random.Random) -> None:
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
    """A supernet of NNI's, with the optimizers and the order of steps of its DartsLightningModule."""

    def __init__(self, strategy: Any, space: ModelSpace, batch: Batch, as_it_comes: bool = False) -> None:
        self.batch = batch
        self.supernet = strategy.mutate_model(space).to(memory_format=batch.memory_format)
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


def ratio_rows(part: str, ratios: Mapping[str, list[float]], unit: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "part": part,
            "what": what,
            "value": round(float(np.median(values)), 3),
            "lowest": round(min(values), 3),
            "highest": round(max(values), 3),
            "unit": unit,
            "networks": len(values),
            **more,
        }
        for what, values in ratios.items()
    ]


def imagenet_space(entangled: bool = False) -> MobileNetV2Space:
    return MobileNetV2Space.from_yaml("mobilenetv2_imagenet", input_size=SIZE, entangled=entangled)


def steps(part: str, memory_format: Any, networks: int, rounds: int) -> list[dict[str, Any]]:
    batch, generator = Batch(memory_format), random.Random(0)
    ours = OurSearch(imagenet_space(), batch)
    entangled = OurSearch(imagenet_space(entangled=True), batch)
    theirs = NniSearch(Proxyless(), imagenet_space(), batch)
    darts = NniSearch(DARTS(), imagenet_space(), batch)
    times: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for number in range(networks):
        architecture = random_architecture(ours.supernet.spec, generator)
        network = architecture.build().to(memory_format=memory_format)
        train = plain_step(network, batch)
        theirs.choose(architecture.choices)
        taken: dict[str, list[float]] = {}
        for _ in range(rounds + 1):

            def note(name: str, run: Callable[[], Any], taken: dict[str, list[float]] = taken) -> None:
                taken.setdefault(name, []).append(seconds(run))

            note("training alone", train)
            for step in OURS:
                ours.choose(architecture.choices, step, generator)
                note(step, lambda step=step: ours.step(step))  # type: ignore[misc]
                entangled.choose(architecture.choices, step, generator)
                note(f"{step}, {ENTANGLED}", lambda step=step: entangled.step(step))  # type: ignore[misc]
            for step in ("weight", "architecture"):
                note(f"NNI Proxyless {step}", lambda step=step: theirs.step(step))  # type: ignore[misc]
                gc.collect()  # it leaves its graphs to it
            if number < 3:
                note("NNI DARTS weight", lambda: darts.step("weight"))
        medians = {name: statistics.median(values[1:]) for name, values in taken.items()}
        unit = medians.pop("training alone")
        for name, value in medians.items():
            times.setdefault(name, []).append(value / unit)
        both = medians["NNI Proxyless weight"] + medians["NNI Proxyless architecture"]
        pair = medians["weight"] + medians["two_path"]
        times.setdefault("NNI Proxyless / ours, weight + architecture", []).append(both / pair)
        recipes = medians[f"weight, {ENTANGLED}"] + medians[f"full, {ENTANGLED}"] / 2
        times.setdefault("recipes' defaults: weight step and half a full one, entangled", []).append(recipes / unit)
        times.setdefault("NNI Proxyless, weight + architecture / recipes' defaults", []).append(both / recipes)
        alone = saved_bytes(lambda network=network: batch.loss(network))  # type: ignore[misc]
        for step in OURS:
            ours.choose(architecture.choices, step, generator)
            memory.setdefault(step, []).append(saved_bytes(lambda step=step: ours.forward(step)) / alone)  # type: ignore[misc]
            entangled.choose(architecture.choices, step, generator)
            saved = saved_bytes(lambda step=step: entangled.forward(step))  # type: ignore[misc]
            memory.setdefault(f"{step}, {ENTANGLED}", []).append(saved / alone)
        memory.setdefault("NNI Proxyless", []).append(saved_bytes(lambda: batch.loss(theirs.supernet)) / alone)
        if number < 3:
            memory.setdefault("NNI DARTS", []).append(saved_bytes(lambda: batch.loss(darts.supernet)) / alone)
    return [*ratio_rows(part, times, "time"), *ratio_rows(part, memory, "saved activations")]


def stepper(who: str, orders: Any) -> None:
    """A process with one search as it comes: told choices, it answers with the seconds of both of its steps."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    generator = random.Random(0)
    search: Any
    if who == "ours":
        keep_freed_memory()  # as `nni-proxyless` does in a search
        search, steps_of = OurSearch(imagenet_space(), Batch()), ("weight", "two_path")
    else:
        search = NniSearch(Proxyless(), imagenet_space(), Batch(torch.contiguous_format), as_it_comes=True)
        steps_of = ("weight", "architecture")
    while (choices := orders.recv()) is not None:
        taken = []
        for step in steps_of:
            if who == "ours":
                search.choose(choices, step, generator)
            else:
                search.choose(choices)
            taken.append(seconds(lambda step=step: search.step(step)))  # type: ignore[misc]
        gc.collect()  # before it answers: the other one's turn begins with the answer
        orders.send(taken)


def default(networks: int, rounds: int) -> list[dict[str, Any]]:
    """Ours in one process, NNI's in another, each with its own defaults; they take turns."""
    spec, generator = SpaceSpec.from_yaml("mobilenetv2_imagenet"), random.Random(0)
    context = multiprocessing.get_context("spawn")
    ends = {who: context.Pipe() for who in ("ours", "NNI")}
    workers = [context.Process(target=stepper, args=(who, end[1]), daemon=True) for who, end in ends.items()]
    for worker in workers:
        worker.start()
    ratios = []
    for _ in range(networks):
        choices = random_architecture(spec, generator).choices
        taken: dict[str, list[list[float]]] = {}
        for _ in range(rounds + 1):
            for who, (order, _) in ends.items():
                order.send(choices)
                taken.setdefault(who, []).append(order.recv())
        both = {who: float(np.median(values[1:], axis=0).sum()) for who, values in taken.items()}
        ratios.append(both["NNI"] / both["ours"])
    for order, _ in ends.values():
        order.send(None)
    for worker in workers:
        worker.join()
    return ratio_rows("default", {"NNI Proxyless as it comes / ours, weight + architecture": ratios}, "time")


class Alike(ModelSpace):
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


def growth(rounds: int) -> list[dict[str, Any]]:
    batch, generator = Batch(), random.Random(0)
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet").with_changes(input_size=SIZE)
    counts = (2, 4, 8, 12)
    ours = {n: OurSearch(Alike(spec, n), batch) for n in counts}
    darts = {n: NniSearch(DARTS(), Alike(spec, n), batch) for n in counts}
    taken: dict[tuple[str, int], list[float]] = {}
    memory: dict[tuple[str, int], float] = {}
    for number in range(2 * rounds + 1):
        for n in counts:
            choices = {layer.label: f"c{generator.randrange(n)}" for layer in spec.layers}
            for step in ("weight", "two_path"):
                ours[n].choose(choices, step, generator)
                taken.setdefault((step, n), []).append(seconds(lambda n=n, step=step: ours[n].step(step)))  # type: ignore[misc]
                if number == 0:
                    memory[step, n] = saved_bytes(lambda n=n, step=step: ours[n].forward(step))  # type: ignore[misc]
            if number < 3:
                taken.setdefault(("NNI DARTS weight", n), []).append(seconds(lambda n=n: darts[n].step("weight")))  # type: ignore[misc]
                if number == 0:
                    memory["NNI DARTS weight", n] = saved_bytes(lambda n=n: batch.loss(darts[n].supernet))  # type: ignore[misc]
    rows = []
    for what in ("weight", "two_path", "NNI DARTS weight"):
        for n in counts:
            first = np.array(taken[what, counts[0]][1:])
            ratios = (np.array(taken[what, n][1:]) / first).tolist()
            rows += ratio_rows("growth", {f"{what}, {n} candidates": ratios}, f"time with {counts[0]}")
            rows += ratio_rows(
                "growth", {f"{what}, {n} candidates": [memory[what, n] / memory[what, counts[0]]]},
                f"saved activations with {counts[0]}",
            )  # fmt: skip
    return rows


class EpochTimes(pl.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def epoch(networks: int, batches: int = 20) -> list[dict[str, Any]]:
    """Interleaved: two epochs of search, two of training one network, and so on; the second of each counts."""
    generator = random.Random(0)
    images = TensorDataset(torch.randn(BATCH * batches, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH * batches,)))
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet").with_changes(input_size=SIZE)

    def trainer(times: EpochTimes, folder: str) -> Any:
        return Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[times],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
        )

    def module() -> ImageClassification:
        return ImageClassification(
            learning_rate=0.01, momentum=0.9, weight_decay=4e-5, label_smoothing=0.1, total_steps=2 * batches
        )

    def loader() -> Any:
        return DataLoader(images, batch_size=BATCH, shuffle=True)

    def search(space: MobileNetV2Space, strategy: ProxylessNAS) -> float:
        with tempfile.TemporaryDirectory() as folder:
            times = EpochTimes()
            evaluator = Lightning(
                module(), trainer(times, folder), train_dataloaders=loader(), val_dataloaders=loader()
            )
            strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
            return times.seconds[-1]

    searched: dict[str, list[float]] = {}
    trained: list[float] = []
    for number in range(networks):
        searched.setdefault("search", []).append(search(MobileNetV2Space(spec), ProxylessNAS(seed=number)))
        recipes = ProxylessNAS(
            arch_gradient="full", arch_update_every=2, arch_weight_decay=ARCH_WEIGHT_DECAY, seed=number
        )
        took = search(MobileNetV2Space(spec, entangled=True), recipes)
        searched.setdefault("search, recipes' defaults", []).append(took)
        with tempfile.TemporaryDirectory() as folder:
            times = EpochTimes()
            alone = module()
            alone.set_model(random_architecture(spec, generator).build())
            trainer(times, folder).fit(alone, loader())
            trained.append(times.seconds[-1])
    unit = statistics.mean(trained)  # a search trains many networks: the mean over some is what it compares with
    ratios = {what: [value / unit for value in values] for what, values in searched.items()}
    return ratio_rows("epoch", ratios, "time of an epoch of training alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["steps", "default", "growth", "epoch"])
    options = parser.parse_args()
    # A process for each: NNI's Proxyless leaves some GB of graphs behind.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        rows = []
        for part in names(options.parts):
            if part == "default":
                rows += default(options.networks, options.rounds)  # has processes of its own
            else:
                rows += pool.apply(run_part, (part, options.networks, options.rounds))
    publish("search_cost", rows, ("nni-proxyless", "nni", "torch", "pytorch-lightning"))


def names(parts: list[str]) -> list[str]:
    return [n for p in parts for n in (("steps, channels_last", "steps, contiguous") if p == "steps" else (p,))]


def run_part(part: str, networks: int, rounds: int) -> list[dict[str, Any]]:
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.manual_seed(0)
    if part == "growth":
        return growth(rounds)
    if part == "epoch":
        return epoch(max(2, networks // 2))
    memory_format = torch.contiguous_format if part.endswith("contiguous") else torch.channels_last
    return steps(part, memory_format, networks, rounds)


if __name__ == "__main__":
    main()
