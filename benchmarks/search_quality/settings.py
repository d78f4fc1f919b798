"""What `search_quality.py` searches with: the settings that all strategies share, and those of each strategy."""

from __future__ import annotations

from typing import Any, Literal

from benchmarks.constants import FINALISTS, OWN_WEIGHTS, RANDOM_BEST_OF, SEARCH_QUALITY_RESULTS

SEARCHES_CSV = SEARCH_QUALITY_RESULTS / "search_quality.csv"
TRIED_CSV = SEARCH_QUALITY_RESULTS / "search_tried.csv"
FINALISTS_CSV = SEARCH_QUALITY_RESULTS / "search_finalists.csv.gz"
SUPERNETS_CSV = SEARCH_QUALITY_RESULTS / "shared_weights.csv.gz"
PICTURE = SEARCH_QUALITY_RESULTS / "search_quality.png"
# Keys that identify a search: the first columns of both files.
SEARCH_KEY = ("strategy", "target", "budget", "seed")
SEARCH_COLUMNS = (
    *SEARCH_KEY, "settings", "budget_ms", "architecture", "accuracy", "best_accuracy", "regret", "percentile",
    "within_budget", "weight_steps", "architecture_steps", "seconds",
)  # fmt: skip
FINALIST_COLUMNS = (*SEARCH_KEY, "rank", "architecture", "shared_accuracy", "log_likelihood")

# All strategies have these. The weights are trained for `epochs` epochs of the weights part, whatever the strategy.
COMMON: dict[str, Any] = {
    "data": "arrays",
    "arch_fraction": 0.4,
    "held_out_fraction": 0.1,
    "epochs": 20,
    "batch_size": 64,
    "learning_rate": 0.1,  # as the networks of the ground truth are trained
    "weight_decay": 5e-4,
    "decay_norm_bias": False,
    "threads": 1,
    "finalists": FINALISTS,
    "entangle_weights": True,
}
# The recipe's defaults of 2026-11-28: a warm-up of 8 epochs without and with decay of the architecture parameters.
WITHOUT_DECAY: dict[str, Any] = {"warmup_epochs": 8, "arch_gradient": "full", "arch_update_every": 2}
WARMUP_OF_8 = {**WITHOUT_DECAY, "arch_weight_decay": 0.001}
DEFAULTS = {**WARMUP_OF_8, "warmup_epochs": 0}
# NNI's searches end nearer to the budget, and find better networks, if decoding alone keeps it (weight 0).
NNI = ("nni_proxyless_builtin", "darts", "gumbel_darts", "enas")
ENTANGLED: dict[str, dict[str, Any]] = {
    "proxyless": DEFAULTS,
    "proxyless_two_path": {"warmup_epochs": 8, "arch_gradient": "two_path"},
    "proxyless_full": {"warmup_epochs": 8, "arch_gradient": "full"},
    "proxyless_reinforce": {"warmup_epochs": 8, "arch_gradient": "reinforce"},
    **{name: {"strategy": name, "latency_weight": 0.0} for name in NNI},
}
OWN_SUFFIX = ", own weights"  # names of strategies whose candidates have weights of their own
STRATEGIES = {
    **ENTANGLED,
    **{
        name + OWN_SUFFIX: {**settings, **OWN_WEIGHTS}
        for name, settings in {**ENTANGLED, "proxyless": WARMUP_OF_8}.items()
    },
}

# Changes that were tried, each alone, on top of `BASE`, which was the default on 2026-11-28.
BASE = "warm-up of 8 epochs"
ONE_FOR_ALL: dict[str, Any] = {"objective": "add_linear", "latency_weight": 0.0}
TRIED_ON_BASE: dict[str, dict[str, Any]] = {
    "proxyless": {"warmup_epochs": 0},
    "warm-up of 4 epochs": {"warmup_epochs": 4},
    "warm-up of 14 epochs": {"warmup_epochs": 14},
    "architecture rate halved": {"arch_learning_rate": 0.0075},
    "architecture rate doubled": {"arch_learning_rate": 0.03},
    "cosine architecture rate": {"arch_schedule": "cosine"},
    "running statistics in architecture steps": {"arch_batch_norm": "running"},
    "4 draws in a step": {"arch_samples": 4},
    # The architecture gets as much of the time as in NNI's strategies.
    "warm-up of 4 epochs, 2 draws after each weight step": {
        "warmup_epochs": 4,
        "arch_samples": 2,
        "arch_update_every": 1,
    },
    "no sharpening": {"sharpen_epochs": 0},
    "fair warm-up": {"warmup_sampling": "fair"},
    "fair paths throughout": {"warmup_sampling": "fair", "weight_sampling": "fair"},
    "one for all budgets, entangled weights": ONE_FOR_ALL,
    # The rate is so low that all paths stay nearly equally probable, as in NNI's strategies.
    "one for all budgets, architecture rate 0.001": {**ONE_FOR_ALL, "arch_learning_rate": 0.001, "sharpen_epochs": 0},
}
# Changes that were tried on `proxyless_two_path, own weights`, the default until 2026-11-27, or on a later default.
TWO_PATH = STRATEGIES[f"proxyless_two_path{OWN_SUFFIX}"]
FAIR = {**TWO_PATH, "warmup_sampling": "fair", "weight_sampling": "fair"}
RATE_HALVED = {"learning_rate": 0.05, "finalists": 32}
TRIED: dict[str, dict[str, Any]] = {
    BASE: WARMUP_OF_8,
    **{name: {**WARMUP_OF_8, **settings} for name, settings in TRIED_ON_BASE.items()},
    "fair throughout": FAIR,
    "rate 0.05": {**TWO_PATH, **RATE_HALVED},
    "rate 0.05, fair warm-up": {**TWO_PATH, **RATE_HALVED, "warmup_sampling": "fair"},
    "rate 0.05, fair throughout": {**FAIR, **RATE_HALVED},
    **{f"latency weight 0.1, {name}": {"strategy": name, **OWN_WEIGHTS} for name in NNI},
    **{f"rate 0.05, latency weight 0.1, {name}": {"strategy": name, **RATE_HALVED, **OWN_WEIGHTS} for name in NNI},
    "full gradient in every second step, fair throughout": {**FAIR, **WITHOUT_DECAY},
    "entangled weights": WITHOUT_DECAY,
    "no architecture decay": {**WITHOUT_DECAY, **OWN_WEIGHTS},
    # Without latency in the loss, one search serves all budgets.
    "one for all budgets": {**WARMUP_OF_8, **ONE_FOR_ALL, **OWN_WEIGHTS},
    "one for all budgets, no architecture decay": {**WITHOUT_DECAY, **ONE_FOR_ALL, **OWN_WEIGHTS},
    "finalists not trained": {**TWO_PATH, "finalist_epochs": 0},
    "finalists trained for 4 epochs": {**TWO_PATH, "finalist_epochs": 4},
}

# The best finalists are trained on, in as much time as the 6 epochs take that are left out.
HALVING = "14 epochs, finalists trained for 50 steps"
TRIED[HALVING] = {**DEFAULTS, "epochs": 14, "finalist_steps": 50}

# Random search: how many networks are drawn, and how they are ranked. `plain` ranks by each network's accuracy with
# shared weights, `smoothed` by the additive fit over all drawn networks, `final selection` as ours does.
Ranking = Literal["plain", "smoothed", "final selection"]
RANDOM: dict[str, tuple[int, Ranking]] = {
    "random_one": (1, "plain"),
    f"random_best_of_{RANDOM_BEST_OF}": (RANDOM_BEST_OF, "plain"),
    "random_best_of_64": (64, "plain"),
    "random_best_of_64, smoothed": (64, "smoothed"),
    "random_best_of_64, as ours": (64, "final selection"),
}
MOST = "most multiply-adds"  # the network with the most multiply-adds within the budget; nothing is trained
