"""The evaluator's own metric: the values that its steps log and return, and the one by which networks are compared."""

from __future__ import annotations

import copy
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torchmetrics
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..errors import InputError

_log = logging.getLogger(__name__)
_HIGHER_IS_BETTER = frozenset([
    "acc", "accuracy", "top", "f1", "f1score", "auc", "auroc", "ap", "map", "iou", "miou", "dice", "r2", "precision",
    "recall", "bleu", "psnr", "ssim", "kappa", "pearson", "spearman", "score", "reward",
])  # fmt: skip
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


def choose_metric(
    means: Mapping[str, float],
    module: Any,
    directions: Mapping[str, bool] | None = None,
    otherwise: str = "set finalists=1",
) -> Metric:
    """Choose a metric among the values that the evaluator's validation logs, or the loss if there is no metric.

    A torchmetrics object states whether higher values are better. For all other values, the name decides, such as
    `val_acc`. A name such as `val_dice_loss` counts as a loss.

    Args:
        means: Logged values by name.
        module: Lightning module of the evaluator, which may have a dictionary `metrics` of torchmetrics objects.
        directions: Whether higher values are better, by name, where the evaluator logs torchmetrics objects.
        otherwise: Alternative to logging a metric, for the message.

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
            "the evaluator's validation_step logs no metric and returns no loss to compare networks by (it logs "
            f"{', '.join(means) or 'nothing'}); log one named like val_acc or val_loss, or {otherwise}"
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


def call_step(step: Callable[..., Any], batch: Any, index: int, loader: int, several: bool) -> Any:
    """Call a step of the evaluator with the arguments that it takes: batch, its index, and the loader's index."""
    taken = list(inspect.signature(step).parameters.values())
    if len(taken) > 2 and (several or taken[2].default is inspect.Parameter.empty):
        return step(batch, index, loader)
    return step(batch, index) if len(taken) > 1 else step(batch)


@contextmanager
def inputs_differentiable(module: nn.Module) -> Iterator[None]:
    """Context manager in which a `training_step` whose loss contains an input gradient can run outside of a training.

    The weights need no gradient meanwhile, so the steps of other evaluators build no graph.
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def number_of(value: Any) -> float | None:
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


def values_of_step(returned: Any, logged: dict[str, Any]) -> dict[str, Any]:
    """Return what a step has logged, with the loss that it returned under the name `loss` unless it logged one."""
    loss = returned.get("loss") if isinstance(returned, Mapping) else returned
    if isinstance(loss, Tensor) and loss.numel() == 1:
        logged.setdefault("loss", loss)
    return logged


def directions_of(values: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether higher values are better, by name, for the torchmetrics objects among logged values."""
    objects = {name: value for name, value in values.items() if isinstance(value, torchmetrics.Metric)}
    return {name: o.higher_is_better for name, o in objects.items() if o.higher_is_better is not None}


class BatchScore:
    """Scores the sampled network of a supernet on one batch, by the evaluator's own metric, or loss if there is none.

    Args:
        module: Lightning module of the evaluator, whose model is the supernet.

    Attributes:
        metric: Metric of the score; `None` before the first batch.
        values: What the evaluator has logged for the last batch, by name.
    """

    def __init__(self, module: Any) -> None:
        self.metric: Metric | None = None
        self.values: dict[str, float] = {}
        self._module = module
        self._validates = is_overridden("validation_step", module)
        self._evaluates = False
        self._step = module.validation_step if self._validates else module.training_step

    @torch.no_grad()
    def of(self, batch: Any, batch_idx: int) -> float:
        """Run the evaluator's `validation_step`, or its `training_step` if it has none.

        Returns:
            Score of the sampled network; the higher the better. A loss counts with its sign reversed.

        Raises:
            InputError: The evaluator yields neither a metric nor a loss.
        """
        module = self._module
        with plain_state_kept(module), unsynchronised(module):
            for metric in torchmetrics_of(module):
                metric.reset()
            try:
                values = self._values(batch, batch_idx)
            except Exception:
                if self._evaluates or not self._validates:
                    raise
                self._evaluates = True
                values = self._values(batch, batch_idx)
            found = {
                name: number
                for name, value in values.items()
                if (number := number_of(value.compute() if isinstance(value, torchmetrics.Metric) else value))
                is not None
            }
        self.values = found
        if self.metric is None:
            self.metric = choose_metric(found, module, directions_of(values), "use a strategy with a gradient")
            _log.info("sampled networks are rewarded by %s", self.metric)
        value = found[self.metric.name]
        return value if self.metric.higher_is_better else -value

    def _values(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Run the step once.

        The network stays in training mode, whose batch-norms normalise by the batch. If `validation_step` fails then,
        all other modules are in evaluation mode: a network may have further outputs while it trains.
        """
        module = self._module
        mode = evaluating_except_norms(module) if self._evaluates else nullcontext()
        alone = nullcontext() if self._validates else inputs_differentiable(module)
        with collect_logged(module) as logged, mode, alone:
            return values_of_step(call_step(self._step, copy_of(batch), batch_idx, 0, False), logged)


@contextmanager
def evaluating_except_norms(module: nn.Module) -> Iterator[None]:
    """Put all modules except batch-norms into evaluation mode, and restore their modes at the end."""
    modes = [(m, m.training) for m in module.modules() if not isinstance(m, _BatchNorm)]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def torchmetrics_of(module: nn.Module) -> list[torchmetrics.Metric]:
    return [m for m in module.modules() if isinstance(m, torchmetrics.Metric)]


def _computed(value: Any) -> Any:
    return value.compute() if isinstance(value, torchmetrics.Metric) else value


def copy_of(batch: Any) -> Any:
    """Return a batch with new containers, so that a step that takes entries out of it leaves the original whole."""
    leaves, structure = tree_flatten(batch)
    return tree_unflatten(leaves, structure)


@contextmanager
def plain_state_kept(module: nn.Module) -> Iterator[None]:
    """Restore the states of torchmetrics objects, and the lists and dictionaries of the module itself, at the end.

    A step may collect its predictions in a list until the end of an epoch, which never comes for it.
    """
    metrics = [(m, metric_state(m)) for m in torchmetrics_of(module)]
    plain = {name: copy.copy(v) for name, v in module.__dict__.items() if type(v) in (list, dict) and name[0] != "_"}
    private = {name: copy.copy(v) for name, v in module.__dict__.items() if type(v) is list and name[0] == "_"}
    try:
        yield
    finally:
        module.__dict__.update({**plain, **private})
        for metric, state in metrics:
            metric.__dict__.update(state)


@contextmanager
def unsynchronised(module: nn.Module) -> Iterator[None]:
    """Compute torchmetrics objects on this rank alone, because the other ranks do not take part."""
    metrics = torchmetrics_of(module)
    before = [(m.sync_on_compute, m._to_sync) for m in metrics]
    for metric in metrics:
        metric.sync_on_compute = metric._to_sync = False
    try:
        yield
    finally:
        for metric, (sync, to_sync) in zip(metrics, before, strict=True):
            metric.sync_on_compute, metric._to_sync = sync, to_sync


def metric_state(metric: torchmetrics.Metric) -> dict[str, Any]:
    """Return the state of a torchmetrics object, which its `__dict__` can be updated with to restore it."""
    names = (*metric.metric_state, "_update_count", "_computed", "_forward_cache")
    return {name: list(v) if isinstance(v := getattr(metric, name), list) else v for name in names}


@contextmanager
def collect_logged(module: Any) -> Iterator[dict[str, Any]]:
    """Collect the values that the evaluator's steps would log, instead of logging them."""
    found: dict[str, Any] = {}
    before = {name: module.__dict__.get(name) for name in ("log", "log_dict")}
    module.log = lambda name, value, *_, **__: found.__setitem__(name, value)
    module.log_dict = lambda dictionary, *_, **__: found.update(dictionary)
    try:
        yield found
    finally:
        for name, own in before.items():
            if own is None:
                delattr(module, name)
            else:
                setattr(module, name, own)
