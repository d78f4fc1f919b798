"""Score of a single network with the supernet's weights, computed by the evaluator's own validation.

Strategies use it for their finalists. `search.shared_weights` evaluates networks for recipes and reports.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
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
from .evaluator_metric import (
    Metric,
    call_step,
    choose_metric,
    collect_logged,
    directions_of,
    inputs_differentiable,
    number_of,
    plain_state_kept,
    torchmetrics_of,
    unsynchronised,
    values_of_step,
)

_log = logging.getLogger(__name__)
STATISTICS_BATCHES = 10
_SEED = 0


class NetworkScore:
    """Scores networks of a supernet.

    The batch-norm statistics are estimated again for each network. Weights, buffers and random number generators are
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
        self._trains = False
        self._to_device = to_device
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        with isolate_rng():
            torch.manual_seed(_SEED)
            wanted = statistics_batches if self._norms else 0
            # The batches are read only once, and are the same for all networks.
            self._statistics = list(itertools.islice(itertools.chain.from_iterable(each_loader(statistics())), wanted))

    @torch.no_grad()
    def of(self, sample: Mapping[str, Any]) -> float:
        """Compute the score of one network; the higher the better.

        Args:
            sample: Mapping from labels to candidates.

        Raises:
            InputError: The validation loader has no batch, or the evaluator yields neither a metric nor a loss.
            SpaceError: The supernet cannot be run as a single network.
        """
        with isolate_rng(), single_path(self._module.model, sample), state_kept(self._module):
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
        """Replace the running statistics by the plain average over some batches, if there are any.

        The network is in evaluation mode, apart from its batch-norms. If the evaluator's `training_step` fails then, it
        is in training mode, in which a network may have further outputs, such as NNI's DARTS with an auxiliary loss.
        """
        if not self._statistics:
            return
        try:
            self._run_statistics()
        except Exception:
            if self._trains:
                raise
            self._trains = True
            self._run_statistics()

    def _run_statistics(self) -> None:
        self._module.train(self._trains)
        for norm in self._norms:
            norm.reset_running_stats()
            norm.momentum = None  # batch-norm then computes the plain (cumulative) average
            norm.train()
        with collect_logged(self._module), inputs_differentiable(self._module):
            for index, batch in enumerate(self._statistics):
                call_step(self._module.training_step, self._to_device(batch), index, 0, False)

    def _validate(self) -> dict[str, float]:
        """Average the values that validation logs and returns over all batches, weighted by batch size.

        For a logged torchmetrics object, its own value over all batches is used instead. The numbers are rounded to the
        precision of 32-bit floats, so that equally good networks have equal scores.
        """
        for metric in torchmetrics_of(self._module):
            metric.reset()
        validates = is_overridden("validation_step", self._module)
        step = self._module.validation_step if validates else self._module.training_step
        sums: dict[str, float] = {}
        objects: dict[str, torchmetrics.Metric] = {}
        total = 0
        loaders = each_loader(self._validation())
        if validates:
            _call_hooks(self._module, "on_validation_start", "on_validation_epoch_start")
        for number, loader in enumerate(loaders):
            for index, batch in enumerate(itertools.islice(loader, self._most_batches(loader))):
                batch = self._to_device(batch)
                context = nullcontext() if validates else inputs_differentiable(self._module)
                with collect_logged(self._module) as logged, context:
                    values_of_step(call_step(step, batch, index, number, len(loaders) > 1), logged)
                size = _size_of(batch)
                total += size
                objects |= {name: value for name, value in logged.items() if isinstance(value, torchmetrics.Metric)}
                for name, value in logged.items():
                    if (found := number_of(value)) is not None:
                        sums[name] = sums.get(name, 0.0) + size * found
        if not total:
            raise InputError("the validation loader has no batch to compare finalists on; set finalists=1")
        means = {name: value / total for name, value in sums.items()}
        with collect_logged(self._module) as logged:
            if validates:
                _call_hooks(self._module, "on_validation_epoch_end")
        objects |= {name: value for name, value in logged.items() if isinstance(value, torchmetrics.Metric)}
        for name, value in {**logged, **objects}.items():
            if (found := number_of(value.compute() if isinstance(value, torchmetrics.Metric) else value)) is not None:
                means[name] = found
        self._directions = directions_of(objects)
        return {name: float(f"{value:.6g}") for name, value in means.items()}

    def _most_batches(self, loader: Any) -> int | None:
        """Return the largest number of a loader's batches, as `Trainer(limit_val_batches=…)` sets it."""
        if isinstance(self._limit, int):
            return self._limit
        return None if self._limit == 1.0 else int(len(loader) * self._limit)


def each_loader(given: Any) -> list[Any]:
    """Return the loaders of a single loader, or of several in a list or mapping."""
    if isinstance(given, Mapping):
        return list(given.values())
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _call_hooks(module: Any, *names: str) -> None:
    for name in names:
        if is_overridden(name, module):
            getattr(module, name)()


def _size_of(batch: Any) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return int(extract_batch_size(batch))
        except Exception:  # Lightning raises its own error for a batch without tensors
            return 1


@contextmanager
def state_kept(module: nn.Module) -> Iterator[None]:
    """Restore buffers, momenta of batch-norms, states of torchmetrics objects and training modes at the end."""
    buffers: Iterable[tuple[Tensor, Tensor]] = [(buffer, buffer.clone()) for buffer in module.buffers()]
    modes = [(m, m.training) for m in module.modules()]
    momenta = [(m, m.momentum) for m in module.modules() if isinstance(m, _BatchNorm)]
    with plain_state_kept(module), unsynchronised(module):
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
            for norm, momentum in momenta:
                norm.momentum = momentum
            for buffer, value in buffers:
                buffer.copy_(value)
