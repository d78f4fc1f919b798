"""One module in many sizes: all sizes use slices of the same weights, and each size has its own buffers.

A slice has the first entries of each dimension, except in two cases. It has the centre of a convolution's kernel. If a
dimension contains several parts one after the other, such as the queries, keys and values of an attention, it has the
first entries of each part (weight entanglement, Chen et al. 2021, AutoFormer, section 3.2; Single-Path NAS, Stamoulis
et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_PLAIN = (bool, int, float, str, type(None))


@dataclass
class _Size:
    """A module of one size without parameters of its own, and where its parameters belong."""

    module: nn.Module
    places: list[tuple[nn.Module, str, nn.Module, torch.Size]]  # its part, the name there, the part with the weights


class _Cache(dict[Hashable, _Size]):
    """Sizes that are made when they are needed. A copy of the module that has them starts without any."""

    def __deepcopy__(self, _memo: Any) -> _Cache:
        return _Cache()


class SlicedModule(nn.Module):
    """A module whose size is chosen in each forward pass.

    Parameters are those of the largest size in each dimension, and every size uses a slice of them. Buffers, such as
    the statistics of batch-norm, are separate for each size.

    Args:
        original: Module of one of the sizes. Its parameters are kept in their slice. What has been set in its
            attributes or weights after its construction, such as `eps` or another initialisation, holds for all sizes.
        sizes: All sizes.
        make: Function that makes a new module of a given size.

    Attributes:
        shared: Module that holds the weights.
        sizes: Modules of those sizes that have buffers.
    """

    def __init__(self, original: nn.Module, sizes: Iterable[Hashable], make: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self._cache = _Cache()
        self._shapes: dict[Hashable, dict[str, torch.Size]] = {}
        self._names: dict[Hashable, str] = {}
        own = {name: p.shape for name, p in original.named_parameters()}
        differences: dict[Hashable, tuple[bool, int]] = {}  # of the original to each size
        for number, key in enumerate(dict.fromkeys(sizes)):
            made = self._on_meta(key)
            self._shapes[key] = {name: p.shape for name, p in made.named_parameters()}
            differences[key] = (self._shapes[key] != own, len(_changed_attributes(original, made)))
            if next(iter(made.buffers()), None) is not None:
                self._names[key] = str(number)
        size = min(differences, key=differences.__getitem__)
        fresh = self._new(size)
        self._changed = _changed_attributes(original, fresh)
        self.sizes = nn.ModuleDict({name: self._without_weights(self._new(key)) for key, name in self._names.items()})
        if size in self._names:
            _copy_buffers(original, self.sizes[self._names[size]])
        self.shared = _holder(self._without_weights(self._new(size)), _initial(original, fresh, self._shapes, make))
        self.train(original.training)

    def _new(self, key: Any) -> nn.Module:
        """Make a module of a size. No random numbers are used up."""
        with torch.random.fork_rng(devices=[]):
            made = self._make(key)
        return made

    def _on_meta(self, key: Any) -> nn.Module:
        """Make a module of a size without memory, where that works."""
        try:
            with torch.device("meta"):
                return self._make(key)
        except Exception:  # a module whose initialisation needs real numbers
            return self._new(key)

    def _without_weights(self, module: nn.Module) -> nn.Module:
        _set_attributes(module, self._changed)
        for part in module.modules():
            for name in part._parameters:
                part._parameters[name] = None
        return module

    def _size(self, key: Hashable) -> _Size:
        found = self._cache.get(key)
        if found is None:
            name = self._names.get(key)
            made = self._without_weights(self._new(key)) if name is None else self.sizes[name]
            parts, weights = dict(made.named_modules()), dict(self.shared.named_modules())
            places = []
            for path, shape in self._shapes[key].items():
                owner, _, last = path.rpartition(".")
                places.append((parts[owner], last, weights[owner], shape))
            found = self._cache[key] = _Size(made, places)
        return found

    def forward(self, key: Hashable, *args: Any, **kwargs: Any) -> Any:
        """Run the module in one of its sizes.

        Args:
            key: Size.
            *args: Arguments of the module.
            **kwargs: Keyword arguments of the module.
        """
        size = self._size(key)
        if size.module.training != self.training:
            size.module.train(self.training)
        recurrent = [part for part in size.module.modules() if isinstance(part, nn.RNNBase)]
        try:
            for owner, name, source, shape in size.places:
                weight: Any = sliced(owner, name, source._parameters[name], shape)  # type: ignore[arg-type]
                owner._parameters[name] = weight
            for part in recurrent:
                part._flat_weights = [part._parameters.get(name) for name in part._flat_weights_names]
            return size.module(*args, **kwargs)
        finally:
            for owner, name, _, _ in size.places:
                owner._parameters[name] = None
            for part in recurrent:
                part._flat_weights = []

    @torch.no_grad()
    def frozen(self, key: Hashable) -> nn.Module:
        """Return a module of one size on its own, with copies of its weights and buffers."""
        made = self._new(key)
        _set_attributes(made, self._changed)
        parts, weights = dict(made.named_modules()), dict(self.shared.named_modules())
        for path, shape in self._shapes[key].items():
            owner, _, name = path.rpartition(".")
            source = weights[owner]._parameters[name]
            assert source is not None
            parameter = parts[owner]._parameters[name]
            assert parameter is not None
            parameter.data = sliced(parts[owner], name, source, shape).detach().clone()
            parameter.requires_grad_(source.requires_grad)
        _copy_buffers(self._size(key).module, made)
        return made.train(self.training)


@torch.no_grad()
def _copy_buffers(source: nn.Module, target: nn.Module) -> None:
    found = dict(source.named_buffers())
    parts = dict(target.named_modules())
    for path, _ in list(target.named_buffers()):
        owner, _, name = path.rpartition(".")
        if path in found:
            parts[owner]._buffers[name] = found[path].detach().clone()


def sliced(owner: nn.Module, name: str, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the slice of a weight that a smaller size of a module uses; the weight itself if it has that shape.

    Args:
        owner: Module, of any size, that has the weight as a parameter.
        name: Name of the parameter in the module.
        weight: Weight of the largest size.
        shape: Shape of the slice.
    """
    if weight.shape == shape:
        return weight
    for dim, (full, size) in enumerate(zip(weight.shape, shape, strict=True)):
        if full == size:
            continue
        parts = _parts(owner, name, dim)
        if parts > 1:
            weight = weight.reshape(*weight.shape[:dim], parts, full // parts, *weight.shape[dim + 1 :])
            weight = weight.narrow(dim + 1, 0, size // parts).flatten(dim, dim + 1)
        else:
            start = (full - size) // 2 if isinstance(owner, _ConvNd) and dim >= 2 else 0
            weight = weight.narrow(dim, start, size)
    return weight


def _parts(owner: nn.Module, name: str, dim: int) -> int:
    """Number of parts that a dimension of a parameter holds one after the other."""
    if isinstance(owner, nn.MultiheadAttention):
        return 3 if name.startswith("in_proj") and dim == 0 else 1
    if isinstance(owner, (nn.RNNBase, nn.RNNCellBase)):
        if dim == 0 and "hr" not in name:
            return 4 if isinstance(owner, (nn.LSTM, nn.LSTMCell)) else 3 if "GRU" in type(owner).__name__ else 1
        layer = name.split("_l")[-1].split("_")[0]
        if dim == 1 and name.startswith("weight_ih_l") and layer != "0":
            return 2 if owner.bidirectional else 1
    return 1


def _largest(shapes: Iterable[Mapping[str, torch.Size]]) -> dict[str, list[int]]:
    """Return the largest size of each dimension of each parameter."""
    full: dict[str, list[int]] = {}
    for of in shapes:
        for name, shape in of.items():
            known = full.setdefault(name, list(shape))
            full[name] = [max(pair) for pair in zip(known, shape, strict=True)]
    return full


@torch.no_grad()
def _initial(
    original: nn.Module,
    fresh: nn.Module,
    shapes: Mapping[Hashable, Mapping[str, torch.Size]],
    make: Callable[[Any], nn.Module],
) -> dict[str, nn.Parameter]:
    """Return the initial weights of the largest size, with those of the original module in their slice.

    The rest is initialised as the module does it, with the scale that the original's weights have relative to new ones.
    """
    full = _largest(shapes.values())
    own, default = dict(original.named_parameters()), dict(fresh.named_parameters())
    weights: dict[str, Tensor] = {}
    owners: dict[str, nn.Module] = {}
    missing = {name for name, shape in full.items() if name not in own or list(own[name].shape) != shape}
    for key in sorted(shapes, key=lambda key: -sum(shape.numel() for shape in shapes[key].values())):
        wanted = [
            name
            for name in sorted(missing & shapes[key].keys())
            if name not in weights or bool(weights[name].isnan().any())
        ]
        if not wanted:
            continue
        made = make(key)
        parts, new = dict(made.named_modules()), dict(made.named_parameters())
        for path in wanted:
            owner, _, name = path.rpartition(".")
            owners[path] = parts[owner]
            of = new[path].detach() * _scale(own.get(path), default.get(path))
            known = weights.setdefault(path, of.new_full(full[path], torch.nan))
            part = sliced(parts[owner], name, known, of.shape)
            _put(parts[owner], name, known, torch.where(part.isnan(), of, part))
    for path, weight in weights.items():
        weight.nan_to_num_(0.0)  # entries that no size uses
        if path in own and own[path].numel():
            first = own[path].flatten()[0]
            if bool((own[path] == first).all()):
                weight.fill_(first)
            _put(owners[path], path.rpartition(".")[2], weight, own[path].detach())
    return {
        path: own[path]
        if path not in weights
        else nn.Parameter(weights[path], requires_grad=path not in own or own[path].requires_grad)
        for path in full
    }


def _put(owner: nn.Module, name: str, full: Tensor, part: Tensor) -> None:
    """Write values into the slice of a weight, in place."""
    index = torch.arange(full.numel()).view(full.shape)
    full.view(-1)[sliced(owner, name, index, part.shape).flatten()] = part.to(full.dtype).flatten()


def _scale(own: Tensor | None, default: Tensor | None) -> float:
    """Ratio of the standard deviations of an initialised weight and of one as its module initialises it.

    It is 1 unless it differs clearly from that of two weights with the same initialisation, whose logarithm has a
    standard deviation of about 1 / sqrt(n).
    """
    if own is None or default is None or own.numel() < 8:
        return 1.0
    mine, theirs = float(own.std()), float(default.std())
    if not (mine > 0 and theirs > 0) or abs(math.log(mine / theirs)) < 4 / math.sqrt(own.numel()):
        return 1.0
    return mine / theirs


def _holder(module: nn.Module, weights: Mapping[str, nn.Parameter]) -> nn.Module:
    """Put weights into a module that has none, and which never runs. Its buffers are removed."""
    for part in module.modules():
        for name in part._buffers:
            part._buffers[name] = None
        if isinstance(part, _NormBase):
            part.track_running_stats = False
    for path, weight in weights.items():
        owner, _, name = path.rpartition(".")
        part = module
        for step in owner.split(".") if owner else ():
            if step not in part._modules:
                part.add_module(step, nn.Module())
            part = part._modules[step]  # type: ignore[assignment]
        part._parameters[name] = weight
    return module


def _changed_attributes(module: nn.Module, fresh: nn.Module) -> list[tuple[str, str, Any]]:
    """List plain attributes of a module and its parts that differ from those of a new one of the same size."""
    new = dict(fresh.named_modules())
    return [
        (part, name, value)
        for part, of in module.named_modules()
        for name, value in vars(of).items()
        if part in new
        and name != "training"
        and not name.startswith("_")
        and isinstance(value, _PLAIN)
        and name in vars(new[part])
        and isinstance(vars(new[part])[name], _PLAIN)
        and vars(new[part])[name] != value
    ]


def _set_attributes(module: nn.Module, changed: Sequence[tuple[str, str, Any]]) -> None:
    parts = dict(module.named_modules())
    for part, name, value in changed:
        if part in parts:
            setattr(parts[part], name, value)
