"""What several benchmarks share: folders, targets, budgets, amounts of data, and settings of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
REPOSITORY = BENCHMARKS.parent
CACHE = BENCHMARKS / "cache"  # image arrays and running searches; git ignores it
LATENCY_RESULTS = BENCHMARKS / "latency" / "results"
COST_RESULTS = BENCHMARKS / "cost" / "results"
SEARCH_QUALITY_RESULTS = BENCHMARKS / "search_quality" / "results"
GROUND_TRUTH = BENCHMARKS / "search_quality" / "ground_truth"
RETRAINING_RESULTS = BENCHMARKS / "retraining" / "results"
CIFAR10_RESULTS = BENCHMARKS / "cifar10" / "results"
PUBLISHED_RESULTS = BENCHMARKS / "published_networks" / "results"
SPACES_RESULTS = BENCHMARKS / "spaces" / "results"
GPU_RESULTS = BENCHMARKS / "gpu" / "results"
FBNET_DATA = Path("../shared/data/latency/fbnet")

TARGETS = ("cpu_torch", "cpu_onnxruntime")
TARGET_NAMES = {"cpu_torch": "PyTorch", "cpu_onnxruntime": "ONNX Runtime"}
SPACE_OF_THE_PAPER = "mobilenetv2_imagenet"

# The smallest space, in which an epoch on the digits takes a quarter of a second. Tests use it, too.
TINY_SPACE: dict[str, Any] = {
    "schema": "nni-proxyless/space@1",
    "name": "tiny",
    "input": {"channels": 1, "size": 8},
    "stem": {"width": 8, "stride": 1},
    "first_block": {"width": 8},
    "stages": [{"width": 8, "depth": 2, "stride": 2}, {"width": 16, "depth": 1, "stride": 2}],
    "candidates": {"kernels": [3, 5], "expansions": [1, 2], "skip": True},
    "head": {"width": 16},
    "classes": 10,
}

# Ground truth: every network of a space of 400 networks has been trained.
GROUND_TRUTH_NETWORKS = 400
GROUND_TRUTH_SEEDS = 2
GROUND_TRUTH_IMAGES = 10_000
GROUND_TRUTH_TEST_IMAGES = 10_000
GROUND_TRUTH_SIZE = 24  # height and width of the images
GROUND_TRUTH_BUDGETS = (0.25, 0.5, 0.75)  # fraction of all networks that are within the budget

# CIFAR-10: searches whose results are trained from scratch and measured.
CIFAR10_SEEDS = 2
CIFAR10_IMAGES = 20_000
CIFAR10_SIZE = 24
CIFAR10_WIDTH = 0.35
CIFAR10_BUDGETS = (0.35, 0.5, 0.65)  # fraction of the largest network's latency

SEEDS = 5  # of searches and supernets, unless the command line says otherwise
PROCESSES = 2
FINALISTS = 64  # networks that the final selection of a search compares
RANDOM_BEST_OF = 8  # networks that the baseline of random search draws
# Each candidate has weights of its own, as in the paper and in NNI, instead of a part of shared weights.
OWN_WEIGHTS: dict[str, Any] = {"entangle_weights": False}
