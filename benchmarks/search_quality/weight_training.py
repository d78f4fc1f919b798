"""Ways to train the weights of a supernet that were tried on random search, as subclasses of its strategy.

`TrainedOtherwise` is random search with one or several of them. A recipe names it as
`strategy: benchmarks.search_quality.weight_training:TrainedOtherwise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.blocks import MBConv
from nni_proxyless.strategies.random_search import RandomSearch
from nni_proxyless.supernet.space import require_description

Sample = Mapping[str, Any]
Buffers = dict[Any, dict[Tensor, Tensor]]


def decay_exponent(size: float, smallest: float, largest: float, most: float) -> float:
    """Exponent γ of a network's learning rate, lr · (1 - t/T)^γ (DYNAS, section 3.2).

    γ is linear in the logarithm of the size. It falls from `most` for the smallest network to 1 / `most` for the
    largest. So the rate of large networks stays high for longer.
    """
    way = math.log(size / smallest) / math.log(largest / smallest)
    return most + way * (1.0 / most - most)


class SizeAwareRate(pl.Callback):
    """Sets the learning rate of each step by the size of the sampled network (DYNAS, Jeon et al., CVPR 2025: CaLR).

    Args:
        size: Function that returns the size of the sampled network.
        smallest: Size of the smallest network.
        largest: Size of the largest network.
        most: Exponent of the smallest network; see `decay_exponent`.
    """

    def __init__(self, size: Callable[[], float], smallest: float, largest: float, most: float) -> None:
        self._size, self._smallest, self._largest, self._most = size, smallest, largest, most

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        gamma = decay_exponent(self._size(), self._smallest, self._largest, self._most)
        left = 1.0 - trainer.global_step / (trainer.max_epochs * trainer.num_training_batches)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * left**gamma


class SeparateMomenta(pl.Callback):
    """Keeps a momentum of its own for each group of networks (DYNAS: momentum separation, MS).

    Args:
        group: Function that returns the group of the sampled network.
    """

    def __init__(self, group: Callable[[], Any]) -> None:
        self._group = group
        self.buffers: Buffers = {}

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        buffers = self.buffers.setdefault(self._group(), {})
        for of in optimizer.param_groups:
            for weight in of["params"]:
                if weight.grad is not None:
                    if weight not in buffers:
                        buffers[weight] = torch.zeros_like(weight)
                    optimizer.state[weight]["momentum_buffer"] = buffers[weight]  # which the step changes in place


class AveragedWeights(pl.Callback):
    """Replaces the weights at the end of the training by their mean over the last epochs (SWA, Izmailov et al. 2018).

    Args:
        epochs: Number of last epochs. The weights after each step of them count the same.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._count = 0
        self._means: list[Tensor] = []

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if trainer.current_epoch < trainer.max_epochs - self._epochs:
            return
        weights = [p.detach() for p in module.training_module.parameters()]
        self._count += 1
        if self._count == 1:
            self._means = [weight.clone() for weight in weights]
        else:
            torch._foreach_lerp_(self._means, weights, 1.0 / self._count)
        if trainer.current_epoch + 1 == trainer.max_epochs and index + 1 == trainer.num_training_batches:
            for weight, mean in zip(weights, self._means, strict=True):
                weight.copy_(mean)


class SharedNorms(pl.Callback):
    """Lets the candidates of a layer train the same weights and biases of batch-norms: each uses the first channels.

    Batch-norms before the projection are shared like its weights. The last ones are shared by all candidates.
    """

    def on_train_start(self, trainer: Any, module: Any) -> None:
        for parent in module.training_module.model.modules():
            blocks = [child for child in parent.children() if isinstance(child, MBConv)]
            if isinstance(parent, nn.Sequential) or len(blocks) < 2:
                continue
            share([block.bn3 for block in blocks])
            for expands in (True, False):
                like = [block for block in blocks if block.expands == expands]
                for name in ("bn1", "bn2") if expands else ("bn2",):
                    share([getattr(block, name) for block in like])


@torch.no_grad()
def share(norms: list[Any]) -> None:
    """Turn weights and biases of batch-norms into views of the first channels of the largest one's."""
    for name in ("weight", "bias"):
        weights = [getattr(norm, name) for norm in norms]
        largest = max(weights, key=len).data
        for weight in weights:
            weight.data = largest[: len(weight)]


class SharedMomenta(pl.Callback):
    """Lets weights that are views of the same memory have one momentum, with the same views of it."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        momenta: dict[int, Tensor] = {}
        for group in trainer.optimizers[0].param_groups:
            for weight in group["params"]:
                storage = weight.untyped_storage()
                values = storage.nbytes() // weight.element_size()
                memory = momenta.setdefault(storage.data_ptr(), torch.zeros(values))
                momentum = memory.as_strided(weight.shape, weight.stride(), weight.storage_offset())
                trainer.optimizers[0].state[weight]["momentum_buffer"] = momentum


class TrainedOtherwise(RandomSearch):
    """Random search whose weights are trained in another way.

    Args:
        rate_exponent: Exponent of the smallest network's learning rate in `SizeAwareRate`; `None` for the recipe's
            schedule.
        momenta: What has a momentum of its own: each candidate of one layer (`layer`), or each quarter of the networks
            by size (`size`); `None` for one momentum.
        averaged_epochs: Number of last epochs over which weights are averaged; 0 averages none.
        split: Number of random networks that share each batch, a part of it each.
        teach: Weight of the loss against the largest network's outputs (in-place distillation, BigNAS, Yu et al. 2020).
        sandwich: Whether each batch trains the largest, the smallest and a random network.
        share_norms: Whether candidates share the weights of batch-norms; see `SharedNorms`.
        share_momenta: Whether entangled weights share their momentum; see `SharedMomenta`.
        residual_scale: Scale with which residual branches start; the blocks start as identities at 0.
        **kwargs: Arguments of `RandomSearch`.

    Attributes:
        trained: Supernet of the last search in this process, with its final weights.
    """

    trained: ClassVar[Any] = None

    def __init__(
        self,
        *,
        rate_exponent: float | None = None,
        momenta: Literal["layer", "size"] | None = None,
        averaged_epochs: int = 0,
        split: int = 1,
        sandwich: bool = False,
        teach: float = 0.0,
        share_norms: bool = False,
        share_momenta: bool = False,
        residual_scale: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._rate_exponent, self._momenta, self._averaged_epochs = rate_exponent, momenta, averaged_epochs
        self._split, self._sandwich, self._teach = split, sandwich, teach
        self._share_norms, self._share_momenta, self._residual_scale = share_norms, share_momenta, residual_scale
        self._sample: dict[str, Any] = {}

    def apply_table(self, model: ModelSpace) -> None:
        super().apply_table(model)
        spec = require_description(model, "training by size")

        def of(sample: Sample) -> int:
            return Architecture.of_space(spec, sample).multiply_adds

        first = {label: candidates[0] for label, candidates in self._candidates.items()}
        self._first_size = of(first)
        self._extra = {
            label: {one: of({**first, label: one}) - self._first_size for one in candidates}
            for label, candidates in self._candidates.items()
        }

    def size(self, sample: Sample) -> float:
        """Multiply-adds of a network. Each layer adds its own, whatever the other layers are."""
        return self._first_size + sum(self._extra[label][sample[label]] for label in self._candidates)

    def extreme(self, pick: Callable[..., Any]) -> dict[str, Any]:
        """The largest network (`max`) or the smallest one (`min`) by multiply-adds."""
        return {label: pick(extra, key=lambda one: extra[one]) for label, extra in self._extra.items()}

    def mutate_model(self, model: ModelSpace) -> ModelSpace:
        supernet = super().mutate_model(model)
        for block in supernet.modules() if self._residual_scale else ():
            if isinstance(block, MBConv) and block.residual:
                nn.init.constant_(block.bn3.weight, self._residual_scale)
        return supernet

    def configure_oneshot_module(self, training_module: Any) -> Any:
        module = super().configure_oneshot_module(training_module)
        inner = module.resample
        self.extremes = {"largest": self.extreme(max), "smallest": self.extreme(min)}

        def resample() -> dict[str, Any]:
            self._sample = inner()
            return self._sample

        def take(sample: Sample) -> None:
            self._sample = dict(sample)
            for supernet_module in module.supernet_modules():
                supernet_module.resample(memo=self._sample)

        module.resample = resample
        if self._split > 1 or self._sandwich or self._teach:

            def training_step(batch: Any, batch_idx: int) -> Tensor:  # Lightning wants these names
                return self._step(module, take, batch)

            module.training_step = training_step
        return module

    def _step(self, module: Any, take: Callable[[Sample], None], batch: Any) -> Tensor:
        images, labels = batch
        training = module.training_module
        if not self._sandwich and not self._teach:
            total = 0.0
            for of, truth in zip(images.chunk(self._split), labels.chunk(self._split), strict=True):
                module.resample()
                total = total + training.criterion(training(of), truth) * (len(of) / len(images))
            return total
        take(self.extremes["largest"])
        if self._sandwich:
            output = training(images)
            loss = training.criterion(output, labels)
        else:
            with torch.no_grad():
                output = training(images)
            loss = 0.0
        teacher = output.detach().softmax(1)
        students = [module.resample] + ([lambda: take(self.extremes["smallest"])] if self._sandwich else [])
        for choose in students:
            choose()
            logits = training(images)
            loss = loss + self._teach * torch.nn.functional.cross_entropy(logits, teacher)
            if self._teach < 1:
                loss = loss + (1 - self._teach) * training.criterion(logits, labels)
        return loss / (3 if self._sandwich else 1)

    def select_finalist(self, trainer: Any) -> None:
        TrainedOtherwise.trained = self.oneshot_module.training_module.model
        super().select_finalist(trainer)

    def mutate_evaluator(self, evaluator: Any) -> Any:
        mutated = super().mutate_evaluator(evaluator)
        smallest, largest = (self.size(self.extremes[name]) for name in ("smallest", "largest"))
        added: list[pl.Callback] = []
        if self._rate_exponent is not None:
            added.append(SizeAwareRate(lambda: self.size(self._sample), smallest, largest, self._rate_exponent))
        if self._momenta == "layer":
            label = next(iter(self._candidates))
            added.append(SeparateMomenta(lambda: self._sample[label]))
        elif self._momenta == "size":
            added.append(
                SeparateMomenta(
                    lambda: min(3, int(4 * math.log(self.size(self._sample) / smallest) / math.log(largest / smallest)))
                )
            )
        if self._averaged_epochs:
            added.append(AveragedWeights(self._averaged_epochs))
        if self._share_norms:
            added.append(SharedNorms())
        if self._share_momenta:
            added.append(SharedMomenta())
        evaluator.trainer.callbacks[:0] = added
        return mutated
