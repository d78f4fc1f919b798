"""Score of a single network with the supernet's weights, computed by the evaluator's own validation.

Strategies use it for their finalists. `search.shared_weights` evaluates networks for recipes and reports.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torchmetrics
from pytorch_lightning.utilities.data import extract_batch_size
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import InputError
from ..supernet.single_path import single_path

_log = logging.getLogger(__name__)
STATISTICS_BATCHES = 10
_SEED = 0
_HIGHER_IS_BETTER = frozenset(
    [
        "acc",
        "accuracy",
        "top",
        "f1",
        "f1score",
        "auc",
        "auroc",
        "ap",
        "map",
        "iou",
        "miou",
        "dice",
        "r2",
        "precision",
        "recall",
        "bleu",
        "psnr",
        "ssim",
        "kappa",
        "pearson",
        "spearman",
        "score",
        "reward",
    ]
)
_LOWER_IS_BETTER = frozenset(
    ["loss", "error", "err", "mse", "rmse", "mae", "mape", "nll", "perplexity", "ppl", "cer", "wer", "eer"]
)


@dataclass(frozen=True)
class Metric:
    """Metric by which networks are compared.

    Attributes:
        name: Name under which the evaluator logs the metric.
        higher_is_better: Whether higher values are better.
    """

    name: str
    higher_is_better: bool

    def __str__(self) -> str:
        return f"{self.name} ({'higher' if self.higher_is_better else 'lower'} is better)"


class NetworkScore:
    """Scores networks of a supernet.

    The batch-norm statistics are estimated anew for each network. Weights, buffers and random number generators are
    restored afterwards.

    Args:
        module: Lightning module of the evaluator, whose model is the supernet.
        validation: Function that returns the loader of the data on which networks are compared.
        statistics: Function that returns the loader whose first batches are used to estimate batch-norm statistics.
        to_device: Function that moves a batch to the module's device.
        statistics_batches: Number of batches for these statistics; 0 keeps those of the supernet.
        limit: Largest number, or fraction, of each validation loader's batches (Lightning's `limit_val_batches`).

    Attributes:
        metric: Metric by which networks are compared; `None` before the first network has been scored.
    """

    def __init__(
        self,
        module: Any,
        validation: Callable[[], Any],
        statistics: Callable[[], Any],
        to_device: Callable[[Any], Any] = lambda batch: batch,
        statistics_batches: int = STATISTICS_BATCHES,
        limit: int | float = 1.0,
    ) -> None:
        self.metric: Metric | None = None
        self._module = module
        self._validation = validation
        self._limit = limit
        self._directions: dict[str, bool] = {}
        self._to_device = to_device
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        with isolate_rng():
            torch.manual_seed(_SEED)
            wanted = statistics_batches if self._norms else 0
            # The batches are read only once, and are the same for all networks.
            self._statistics = list(itertools.islice(itertools.chain.from_iterable(_loaders(statistics())), wanted))

    @torch.no_grad()
    def of(self, sample: Mapping[str, Any]) -> float:
        """Compute the score of one network; the higher the better.

        Args:
            sample: Mapping from labels to candidates.

        Raises:
            InputError: The validation loader has no batch, or the evaluator yields neither a metric nor a loss.
            SpaceError: The supernet cannot be run as a single network.
        """
        with isolate_rng(), single_path(self._module.model, sample), _kept(self._module):
            torch.manual_seed(_SEED)  # so that all networks see the same augmentation
            self._estimate_statistics()
            self._module.eval()
            means = self._validate()
        if self.metric is None:
            self.metric = choose_metric(means, self._module, self._directions)
            _log.info("networks are compared by %s", self.metric)
        value = means[self.metric.name]
        return value if self.metric.higher_is_better else -value

    def _estimate_statistics(self) -> None:
        """Replace the running statistics by the plain average over some batches, if there are any."""
        self._module.eval()
        if not self._statistics:
            return
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None  # batch-norm then computes the plain (cumulative) average
            norm.train()
        with _logged(self._module):
            for index, batch in enumerate(self._statistics):
                _call(self._module.training_step, self._to_device(batch), index, 0, False)

    def _validate(self) -> dict[str, float]:
        """Average the values that validation logs and returns over all batches, weighted by batch size.

        A torchmetrics object that is logged is asked for its value over all batches instead. The numbers are rounded to
        the accuracy of 32-bit floats, so that equally good networks have equal scores.
        """
        for metric in _torchmetrics(self._module):
            metric.reset()
        validates = is_overridden("validation_step", self._module)
        step = self._module.validation_step if validates else self._module.training_step
        sums: dict[str, float] = {}
        objects: dict[str, torchmetrics.Metric] = {}
        total = 0
        loaders = _loaders(self._validation())
        for number, loader in enumerate(loaders):
            for index, batch in enumerate(itertools.islice(loader, self._most_batches(loader))):
                batch = self._to_device(batch)
                with _logged(self._module) as logged:
                    returned = _call(step, batch, index, number, len(loaders) > 1)
                loss = returned.get("loss") if isinstance(returned, Mapping) else returned
                if isinstance(loss, Tensor) and loss.numel() == 1:
                    logged.setdefault("loss", loss)
                size = _size_of(batch)
                total += size
                objects |= {name: value for name, value in logged.items() if isinstance(value, torchmetrics.Metric)}
                for name, value in logged.items():
                    if (found := _number(value)) is not None:
                        sums[name] = sums.get(name, 0.0) + size * found
        if not total:
            raise InputError("the validation loader has no batch to compare finalists on; set finalists=1")
        means = {name: value / total for name, value in sums.items()}
        with _logged(self._module) as logged:
            if validates and is_overridden("on_validation_epoch_end", self._module):
                self._module.on_validation_epoch_end()
        objects |= {name: value for name, value in logged.items() if isinstance(value, torchmetrics.Metric)}
        for name, value in {**logged, **objects}.items():
            if (found := _number(value.compute() if isinstance(value, torchmetrics.Metric) else value)) is not None:
                means[name] = found
        self._directions = {
            name: metric.higher_is_better for name, metric in objects.items() if metric.higher_is_better is not None
        }
        return {name: float(f"{value:.6g}") for name, value in means.items()}

    def _most_batches(self, loader: Any) -> int | None:
        """Return the largest number of a loader's batches, as `Trainer(limit_val_batches=…)` sets it."""
        if isinstance(self._limit, int):
            return self._limit
        return None if self._limit == 1.0 else int(len(loader) * self._limit)


def choose_metric(means: Mapping[str, float], module: Any, directions: Mapping[str, bool] | None = None) -> Metric:
    """Choose a metric among the values that the evaluator's validation logs, or the loss if there is no metric.

    A torchmetrics object states whether higher values are better. For all other values, the name decides, such as
    `val_acc`. A name such as `val_dice_loss` counts as a loss.

    Args:
        means: Logged values by name.
        module: Lightning module of the evaluator, which may have a dictionary `metrics` of torchmetrics objects.
        directions: Whether higher values are better, by name, where the evaluator logs torchmetrics objects.

    Raises:
        InputError: There is neither a metric nor a loss.
    """
    known: dict[str, bool] = {}
    for key, metric in dict(getattr(module, "metrics", None) or {}).items():
        direction = getattr(metric, "higher_is_better", None)
        if direction is not None:
            known |= {name: direction for name in means if name == key or name.endswith(f"_{key}")}
    known |= directions or {}
    for name in means:
        if name not in known and (by_name := _direction(name)) is not None:
            known[name] = by_name
    if not known:
        raise InputError(
            "the evaluator's validation_step logs no metric and returns no loss to compare finalists by (it logs "
            f"{', '.join(means) or 'nothing'}); log one named like val_acc or val_loss, or set finalists=1"
        )
    ranked = sorted(known, key=lambda name: (not known[name], bool(re.search("loss", name, re.IGNORECASE))))
    return Metric(ranked[0], known[ranked[0]])


def _direction(name: str) -> bool | None:
    """Return whether higher values are better according to the words of a name; `None` if no word is known."""
    parts = re.split(r"[^A-Za-z0-9]+", name)
    parts += [word for part in parts for word in re.split(r"(?<=[a-z])(?=[A-Z])", part)]  # such as valAcc
    words = [part.lower() for part in parts]
    words += [word.rstrip("0123456789") for word in words]  # such as top5
    if not _LOWER_IS_BETTER.isdisjoint(words):
        return False
    return None if _HIGHER_IS_BETTER.isdisjoint(words) else True


def _loaders(given: Any) -> list[Any]:
    """Return the loaders of a single loader, or of several in a list or mapping."""
    if isinstance(given, Mapping):
        return list(given.values())
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _call(step: Callable[..., Any], batch: Any, index: int, loader: int, several: bool) -> Any:
    """Call a step of the evaluator with the arguments that it takes: batch, its index, and the loader's index."""
    taken = list(inspect.signature(step).parameters.values())
    if len(taken) > 2 and (several or taken[2].default is inspect.Parameter.empty):
        return step(batch, index, loader)
    return step(batch, index) if len(taken) > 1 else step(batch)


def _size_of(batch: Any) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(extract_batch_size(batch))
        except Exception:  # Lightning raises its own error for a batch without tensors
            return 1


def _number(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def _torchmetrics(module: nn.Module) -> list[torchmetrics.Metric]:
    return [m for m in module.modules() if isinstance(m, torchmetrics.Metric)]


@contextmanager
def _logged(module: Any) -> Iterator[dict[str, Any]]:
    """Collect the values that the evaluator's steps would log, instead of logging them."""
    found: dict[str, Any] = {}
    before = {name: module.__dict__.get(name) for name in ("log", "log_dict")}
    module.log = lambda name, value, *_, **__: found.__setitem__(name, value)
    module.log_dict = lambda values, *_, **__: found.update(values)
    try:
        yield found
    finally:
        for name, own in before.items():
            if own is None:
                delattr(module, name)
            else:
                setattr(module, name, own)


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Restore buffers, momenta of batch-norms, states of torchmetrics objects and training modes at the end."""
    buffers: Iterable[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(m, m.training) for m in module.modules()]
    momenta = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
    metrics = [(m, _state_of(m)) for m in _torchmetrics(module)]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum in momenta:
            norm.momentum = momentum
        for buffer, value in buffers:
            buffer.copy_(value)
        for metric, state in metrics:
            metric.__dict__.update(state)


def _state_of(metric: torchmetrics.Metric) -> dict[str, Any]:
    names = (*metric.metric_state, "_update_count", "_computed", "_forward_cache")
    return {name: list(v) if isinstance(v := getattr(metric, name), list) else v for name in names}
