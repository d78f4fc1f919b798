"""Train every network of a small space with the same settings, and record its accuracy.

    python -m benchmarks.search_quality.ground_truth.train --data ../shared/data/cifar10 [--seeds 2] [--minutes 120]
    python -m benchmarks.search_quality.ground_truth.train --data ../shared/data/cifar10 --contenders --seeds 16

The first command trains every network. The second trains those that matter when searches are judged, `contenders.py`,
with more seeds: all of them with one seed, then all of them with the next, so that an interrupted run leaves equal
numbers of trainings.

The script continues where it stopped: each finished training is a row of `networks.csv`. Each process trains one
network at a time on one core. `summary.py` reads the rows and makes tables and a picture.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import io
import itertools
import multiprocessing
import random
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.constants import (
    CACHE,
    GROUND_TRUTH_IMAGES,
    GROUND_TRUTH_SEEDS,
    GROUND_TRUTH_SIZE,
    GROUND_TRUTH_TEST_IMAGES,
    PROCESSES,
)
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.ground_truth.contenders import contenders
from benchmarks.search_quality.ground_truth.load import NETWORKS_CSV, SPACE, GroundTruth
from nni_proxyless.data.image_arrays import ArrayImages, load_arrays
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.process_memory import keep_freed_memory
from nni_proxyless.training.cpu_kernels import accelerate

COLUMNS = ("architecture", "seed", "test_accuracy", "train_loss", "seconds")


@dataclass(frozen=True)
class Training:
    """How every network is trained.

    Attributes:
        images: Number of training images, a stratified part of CIFAR-10's.
        test_images: Number of test images; neither trainings nor searches see them.
        size: Height and width that the images are reduced to.
        epochs: Number of epochs.
        batch_size: Images in a batch.
        learning_rate: Peak rate of SGD with Nesterov momentum 0.9; the schedule is one cycle.
        weight_decay: L2 penalty.
    """

    images: int = GROUND_TRUTH_IMAGES
    test_images: int = GROUND_TRUTH_TEST_IMAGES
    size: int = GROUND_TRUTH_SIZE
    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4


def make_data(source: Path, training: Training, path: Path) -> Path:
    """Make the images once, as an `.npz` file for recipes with `data: arrays`.

    Args:
        source: Folder with `train.tar.xz`, CIFAR-10's training images as `train/<class>/<number>.jpg`.
        training: Number and size of the images.
        path: The file to write.

    Returns:
        The file.
    """
    if path.exists():
        return path
    names, images, labels = [], [], []
    with tarfile.open(source / "train.tar.xz") as archive:
        for member in archive:
            if member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                names.append(member.name)
                image = Image.open(io.BytesIO(file.read())).convert("RGB")
                images.append(np.asarray(image.resize((training.size, training.size), Image.Resampling.BOX)))
                labels.append(member.name.split("/")[-2])
    order = np.argsort(names)  # the same split, whatever the order in the archive
    pixels = np.stack(images)[order]
    classes = np.unique(labels, return_inverse=True)[1][order]
    train, test = train_test_split(
        np.arange(len(classes)),
        train_size=training.images,
        test_size=training.test_images,
        random_state=0,
        stratify=classes,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, images=pixels[train], labels=classes[train], test_images=pixels[test], test_labels=classes[test])
    return path


def data_file() -> Path:
    """The file with the images of the ground truth."""
    return CACHE / f"cifar10-{Training().images}-{Training().size}.npz"


def all_architectures(spec: SpaceSpec) -> list[Architecture]:
    """Every distinct network of the space."""
    labels = [layer.label for layer in spec.layers]
    return [
        Architecture.of_space(spec, dict(zip(labels, names, strict=True)))
        for names in itertools.product(*(layer.names for layer in spec.layers))
    ]


def train_network(
    architecture: Architecture, data: ArrayImages, test: ArrayImages, training: Training, seed: int
) -> tuple[float, float]:
    """Train one network.

    Returns:
        Accuracy on the test images, between 0 and 1, and the mean training loss of the last epoch.
    """
    torch.manual_seed(seed)
    network = accelerate(architecture.build()).to(memory_format=torch.channels_last)
    decay = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=training.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    steps = training.epochs * (len(data) // training.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, steps, pct_start=0.1, cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss()
    network.train()
    losses: list[float] = []
    for _ in range(training.epochs):
        losses = []
        order = torch.randperm(len(data))
        for indices in order.split(training.batch_size):
            if len(indices) < training.batch_size:
                continue
            images, labels = data.batch(indices)
            loss = loss_of(network(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
    return test_accuracy(network, test), float(np.mean(losses))


@torch.no_grad()
def test_accuracy(network: nn.Module, test: ArrayImages) -> float:
    """Top-1 accuracy, between 0 and 1."""
    network.eval()
    right = 0
    for indices in torch.arange(len(test)).split(500):
        images, labels = test.batch(indices)
        right += int((network(images.to(memory_format=torch.channels_last)).argmax(1) == labels).sum())
    return right / len(test)


def finished(path: Path = NETWORKS_CSV) -> set[tuple[str, int]]:
    """Candidate names and seed of each finished training."""
    return {(row["architecture"], int(row["seed"])) for row in read_rows(path)}


def _append(row: dict[str, object]) -> None:
    """Append one whole row, unless another process has appended the same training."""
    with NETWORKS_CSV.open("a", encoding="utf-8", newline="") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if (row["architecture"], row["seed"]) in finished():
            return
        file.seek(0, io.SEEK_END)
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


_worker: dict[str, tuple[ArrayImages, ArrayImages]] = {}


def _start(path: Path) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    train, _, test = load_arrays(path)
    assert test is not None
    _worker["data"] = train, test


def _train(job: tuple[str, int, float]) -> str | None:
    names, seed, deadline = job
    if time.time() > deadline:
        return None
    spec = SpaceSpec.from_yaml(str(SPACE))
    choices = dict(zip((layer.label for layer in spec.layers), names.split(), strict=True))
    start = time.perf_counter()
    found, loss = train_network(Architecture.of_space(spec, choices), *_worker["data"], Training(), seed)
    seconds = time.perf_counter() - start
    _append(
        {"architecture": names, "seed": seed, "test_accuracy": found, "train_loss": round(loss, 5),
         "seconds": round(seconds, 1)}
    )  # fmt: skip
    return f"{names}, seed {seed}: {found:.4f}, {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10's train.tar.xz")
    parser.add_argument("--seeds", type=int, default=GROUND_TRUTH_SEEDS)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument(
        "--networks", type=int, help="train only this many networks, drawn at random or the first contenders"
    )
    parser.add_argument(
        "--contenders", action="store_true", help="train the networks that matter, seed by seed, instead of all"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after this long")
    options = parser.parse_args()
    spec = SpaceSpec.from_yaml(str(SPACE))
    data = make_data(options.data, Training(), data_file())
    names = [architecture.candidate_names for architecture in all_architectures(spec)]
    random.Random(0).shuffle(names)  # so that an unfinished run has trained a random part
    seeds = range(options.seeds)
    if options.contenders:
        jobs = [(name, seed) for seed in seeds for name in contenders(GroundTruth())[: options.networks]]
    else:
        jobs = [(name, seed) for name in names[: options.networks] for seed in seeds]
    left = [job for job in jobs if job not in finished()]
    sys.stdout.write(f"{len(jobs)} trainings, {len(jobs) - len(left)} finished\n")
    deadline = time.time() + 60 * options.minutes
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, _start, (data,)) as pool:
        for done, line in enumerate(pool.imap_unordered(_train, [(*job, deadline) for job in left]), start=1):
            if line:
                sys.stdout.write(f"{len(jobs) - len(left) + done}/{len(jobs)} {line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
