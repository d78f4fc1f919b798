"""Score of a single network with the supernet's weights, computed by the evaluator's own validation."""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
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
_HIGHER_IS_BETTER = re.compile(
    r"(^|[_/.])(acc|accuracy|top_?[0-9]+|f1|auc|auroc|map|iou|miou|dice|r2|precision|recall|bleu|psnr|ssim|kappa|"
    r"pearson|spearman|score|reward)([_/.0-9]|$)",
    re.IGNORECASE,
)
_LOWER_IS_BETTER = re.compile(
    r"(^|[_/.])(loss|error|err|mse|rmse|mae|mape|nll|perplexity|ppl|cer|wer|eer)([_/.0-9]|$)", re.IGNORECASE
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
    ) -> None:
        self.metric: Metric | None = None
        self._module = module
        self._validation = validation
        self._to_device = to_device
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        with isolate_rng():
            torch.manual_seed(_SEED)
            wanted = statistics_batches if self._norms else 0
            # The batches are read only once, and are the same for all networks.
            self._statistics = list(itertools.islice(_batches(statistics()), wanted))

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
            self.metric = choose_metric(means, self._module)
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
                self._module.training_step(self._to_device(batch), index)

    def _validate(self) -> dict[str, float]:
        """Average the values that validation logs and returns over all batches, weighted by batch size."""
        validates = is_overridden("validation_step", self._module)
        step = self._module.validation_step if validates else self._module.training_step
        sums: dict[str, float] = {}
        total = 0
        loaders = self._validation()
        for index, batch in enumerate(_batches(loaders)):
            batch = self._to_device(batch)
            with _logged(self._module) as logged:
                returned = step(batch, index)
            loss = returned.get("loss") if isinstance(returned, Mapping) else returned
            if isinstance(loss, Tensor) and loss.numel() == 1:
                logged.setdefault("loss", loss)
            size = _size_of(batch)
            total += size
            for name, value in logged.items():
                if (number := _number(value)) is not None:
                    sums[name] = sums.get(name, 0.0) + size * number
        if not total:
            raise InputError("the validation loader has no batch to compare finalists on; set finalists=1")
        return {name: value / total for name, value in sums.items()}


def choose_metric(means: Mapping[str, float], module: Any) -> Metric:
    """Choose a metric among the values that the evaluator's validation logs, or the loss if there is no metric.

    A torchmetrics object states whether higher values are better. For all other values, the name decides, such as
    `val_acc`.

    Args:
        means: Logged values by name.
        module: Lightning module of the evaluator, which may have a dictionary `metrics` of torchmetrics objects.

    Raises:
        InputError: There is neither a metric nor a loss.
    """
    known: dict[str, bool] = {}
    for key, metric in dict(getattr(module, "metrics", None) or {}).items():
        direction = getattr(metric, "higher_is_better", None)
        if direction is not None:
            known |= {name: direction for name in means if name == key or name.endswith(f"_{key}")}
    for name in means:
        if name not in known and _HIGHER_IS_BETTER.search(name):
            known[name] = True
    for name in means:
        if name not in known and _LOWER_IS_BETTER.search(name):
            known[name] = False
    if not known:
        raise InputError(
            "the evaluator's validation_step logs no metric and returns no loss to compare finalists by (it logs "
            f"{', '.join(means) or 'nothing'}); log one named like val_acc or val_loss, or set finalists=1"
        )
    ranked = sorted(known, key=lambda name: (not known[name], bool(re.search("loss", name, re.IGNORECASE))))
    return Metric(ranked[0], known[ranked[0]])


def _batches(loaders: Any) -> Iterator[Any]:
    """Iterate over the batches of one loader, or of several loaders one after the other."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        return itertools.chain.from_iterable(loaders)
    return iter(loaders)


def _size_of(batch: Any) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(extract_batch_size(batch))
        except Exception:  # Lightning raises its own error for a batch without tensors
            return 1


def _number(value: Any) -> float | None:
    if hasattr(value, "compute") and hasattr(value, "reset"):  # a torchmetrics object: take its value for this batch
        value = getattr(value, "_forward_cache", None)
    if isinstance(value, Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, (int, float)) else None


@contextmanager
def _logged(module: Any) -> Iterator[dict[str, Any]]:
    """Collect the values that the evaluator's steps would log, instead of logging them."""
    found: dict[str, Any] = {}
    before = module.__dict__.get("log")
    module.log = lambda name, value, *_, **__: found.__setitem__(name, value)
    try:
        yield found
    finally:
        if before is None:
            del module.log
        else:
            module.log = before


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Restore buffers, momenta of batch-norms and training modes at the end."""
    buffers: Iterable[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(m, m.training) for m in module.modules()]
    momenta = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum in momenta:
            norm.momentum = momentum
        for buffer, value in buffers:
            buffer.copy_(value)
