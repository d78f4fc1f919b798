"""A latency table applied to a search space: the cost of each candidate of each layer, and the cost of networks.

The expected latency E[lat] = fixed + Σ_layers Σ_i p_i F(o_i) is linear in the path probabilities, and
∂E/∂p_i = F(o_i) (paper section 3.3.1, eq. 5 and 6). A single traversal of the layers computes the cost of an
architecture, of a distribution over architectures, and of the cheapest and the most expensive network.

Spaces with choices of widths also have costs of several layers at once (`joint_costs.py`). Layers are chosen
independently, so the expectation of such a cost is Σ p_i p_j F(o_i, o_j), which is exact and differentiable too. Where
a cost depends on many layers through one quantity (`derived.py`), the probabilities of its values stand for p.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InputError, LatencyTableError, unknown_name
from .arrays import FloatArray
from .cheapest_by_states import cheapest_by_states
from .derived import Derived
from .joint_costs import JointCosts, cheapest

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import Tensor

_T = TypeVar("_T")


@dataclass(frozen=True)
class SpaceCosts:
    """Cost of each candidate of each layer, in the table's unit (ms, FLOPs or parameters).

    Attributes:
        fixed: Cost that every network of the space has, including the calibration offset.
        candidates: Candidate names of each layer, by layer label.
        layers: Costs of each layer's candidates, by layer label, in the order of `candidates`. A skip costs 0.
        unit: Unit of the table.
        joint: Costs that depend on several layers at once, in addition to those of the layers. Their labels may be
            names of `derived`. No two labels of a joint cost follow from a common layer.
        derived: Quantities that follow from several layers.
    """

    fixed: float
    candidates: Mapping[str, Sequence[Any]]
    layers: Mapping[str, tuple[float, ...]]
    unit: str = "ms"
    joint: tuple[JointCosts, ...] = ()
    derived: tuple[Derived, ...] = ()

    def _total(
        self,
        layer_cost: Callable[[str, tuple[float, ...]], _T],
        joint_cost: Callable[[tuple[str, ...], FloatArray], _T],
    ) -> _T | float:
        """Sum the fixed cost, `layer_cost(label, costs)` of every layer and `joint_cost(labels, array)` of joint costs.

        All sums below use this traversal.
        """
        total: Any = self.fixed
        for label, costs in self.layers.items():
            total = total + layer_cost(label, costs)
        for labels, values in self.joint_arrays:
            total = total + joint_cost(labels, values)
        return total  # type: ignore[no-any-return]

    @cached_property
    def joint_arrays(self) -> list[tuple[tuple[str, ...], FloatArray]]:
        """Labels and costs of each of `joint`, the latter with one axis for each label."""
        sizes = {label: len(of) for label, of in self.layers.items()} | {d.name: len(d.values) for d in self.derived}
        return [(joint.labels, joint.array([sizes[k] for k in joint.labels])) for joint in self.joint]

    def of(self, choices: Mapping[str, Any]) -> float:
        """Compute the cost of one architecture.

        Args:
            choices: Name of the chosen candidate, or the candidate itself, by layer label.

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """
        places = self._places(choices)
        return float(
            self._total(
                lambda label, costs: costs[places[label]],
                lambda labels, values: float(values[tuple(places[label] for label in labels)]),
            )
        )

    def largest_of(self, choices: Mapping[str, Any]) -> float:
        """Return the largest cost of the layers of one architecture, or `fixed` if that is larger; see `of`."""
        places = self._places(choices)
        chosen = [costs[places[label]] for label, costs in self.layers.items()]
        joint = [float(values[tuple(places[label] for label in labels)]) for labels, values in self.joint_arrays]
        return float(max([self.fixed, *chosen, *joint]))

    def entries(self) -> list[float]:
        """Return all different costs, where the largest one counts, without those of values that no network has."""
        allowed = {quantity.name: quantity.allowed for quantity in self.derived}
        found = {self.fixed, *(value for of in self.layers.values() for value in of)}
        for labels, values in self.joint_arrays:
            found.update(values[tuple(slice(allowed.get(label)) for label in labels)].ravel().tolist())
        return sorted(found)

    def _places(self, choices: Mapping[str, str]) -> dict[str, int]:
        """Return the positions of the chosen candidates, and of the values of the derived quantities."""
        places: dict[str, int] = {}
        for label in self.layers:
            if label not in choices:
                raise InputError(f"the architecture lacks layer {label}")
            places[label] = self._position(label, choices[label])
        return places | {quantity.name: int(quantity.places_of(places)) for quantity in self.derived}

    def of_many(self, columns: Mapping[str, Sequence[str] | npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Compute the costs of many architectures at once.

        Args:
            columns: Names of the chosen candidates of the `n` architectures, shape (n,), by layer label. Keys that are
                not layer labels are ignored.

        Returns:
            Costs of the architectures, shape (n,).

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """
        missing = [label for label in self.layers if label not in columns]
        if missing:
            raise InputError(f"the architectures lack the layer(s) {', '.join(missing)}")

        places = {}
        for label in self.layers:
            names, codes = np.unique(np.asarray(columns[label]), return_inverse=True)
            places[label] = np.array([self._position(label, name) for name in names], dtype=np.int64)[codes]
        places |= {quantity.name: quantity.places_of(places) for quantity in self.derived}
        total = self._total(
            lambda label, costs: np.asarray(costs, dtype=np.float64)[places[label]],
            lambda labels, values: values[tuple(places[label] for label in labels)],
        )
        return np.asarray(total, dtype=np.float64)

    def expected(self, probs: Mapping[str, Tensor]) -> Tensor:
        """Compute E[cost] = fixed + Σ_layers Σ_i p_i F(o_i), differentiable in the probabilities (paper eq. 5 and 6).

        Examples:
            >>> costs = SpaceCosts(1.0, {"a": ("small", "large")}, {"a": (1.0, 3.0)})
            >>> probs = torch.tensor([0.75, 0.25], requires_grad=True)
            >>> expected = costs.expected({"a": probs})
            >>> expected.backward()
            >>> float(expected), probs.grad.tolist()
            (2.5, [1.0, 3.0])

        Args:
            probs: Path probabilities of each layer, shape (num_candidates,), by layer label.
        """
        import torch

        known = {**probs, **{quantity.name: quantity.probs(probs) for quantity in self.derived}}

        def of_layer(label: str, costs: tuple[float, ...]) -> Tensor:
            p = probs[label]
            return torch.dot(p, torch.tensor(costs, dtype=p.dtype, device=p.device))

        def of_joint(labels: tuple[str, ...], values: FloatArray) -> Tensor:
            left = torch.as_tensor(values, dtype=known[labels[0]].dtype, device=known[labels[0]].device)
            for label in reversed(labels):
                left = left @ known[label]  # sums over the last axis
            return left

        return torch.as_tensor(self._total(of_layer, of_joint))

    @cached_property
    def cheapest(self) -> dict[str, Any]:
        """The cheapest network, as a mapping from labels to candidates."""
        return self._extreme(1.0)

    @cached_property
    def smallest(self) -> float:
        """Cost of the cheapest network."""
        return self.of(self.cheapest)

    @cached_property
    def largest(self) -> float:
        """Cost of the most expensive network."""
        return self.of(self.dearest)

    @cached_property
    def dearest(self) -> dict[str, Any]:
        """The most expensive network, as a mapping from labels to candidates."""
        return self._extreme(-1.0)

    @property
    def mean(self) -> float:
        """Mean cost of all networks."""
        return self._mean({})

    def _mean(self, given: Mapping[str, int]) -> float:
        """Mean cost of all networks with some candidates, which are given by their positions."""
        probs = {label: np.full(len(costs), 1.0 / len(costs)) for label, costs in self.layers.items()}
        probs |= {label: np.eye(len(self.layers[label]))[place] for label, place in given.items()}
        probs |= {quantity.name: quantity.array_probs(probs) for quantity in self.derived}

        def of_joint(labels: tuple[str, ...], values: FloatArray) -> float:
            for label in reversed(labels):
                values = values @ probs[label]
            return float(values)

        return float(self._total(lambda label, costs: float(np.dot(costs, probs[label])), of_joint))

    @property
    def averaged(self) -> tuple[float, dict[str, tuple[float, ...]]]:
        """Fixed cost and costs of the layers alone, with each joint cost averaged over its other layers.

        The cheapest candidate of a layer with joint costs has the cost 0, and `fixed` is larger instead.
        """
        layers = {label: np.asarray(values, dtype=np.float64) for label, values in self.layers.items()}
        behind = {quantity.name: quantity.labels for quantity in self.derived}
        for label in {layer for joint in self.joint for each in joint.labels for layer in behind.get(each, (each,))}:
            means = np.array([self._mean({label: place}) for place in range(len(layers[label]))])
            layers[label] = means - means.min()
        fixed = self.mean - sum(float(values.mean()) for values in layers.values())
        return fixed, {label: tuple(values.tolist()) for label, values in layers.items()}

    def _extreme(self, sign: float) -> dict[str, Any]:
        """Find the network with the smallest cost times `sign`."""
        labels = list(self.layers)
        layers = [sign * np.asarray(self.layers[label], dtype=np.float64) for label in labels]
        if self.joint or self.derived:
            by_label = dict(zip(labels, layers, strict=True)) | {d.name: np.zeros(d.allowed) for d in self.derived}
            order = list(by_label)
            joint = [
                ([order.index(k) for k in of], sign * values[tuple(slice(len(by_label[k])) for k in of)])
                for of, values in self.joint_arrays
            ]
            found = cheapest_by_states(by_label, joint, self.derived)
            places = (cheapest(by_label, joint, self.derived) if found is None else found)[: len(labels)]
        else:
            places = [int(costs.argmin()) for costs in layers]
        return {label: self.candidates[label][place] for label, place in zip(labels, places, strict=True)}

    def above_zero(self, source: str, *, fitted: bool = False) -> SpaceCosts:
        """Return these costs, and check that the cheapest network costs more than 0.

        Args:
            source: Name of the table, for the error message.
            fitted: Whether the costs were fitted to whole networks. The extrapolation to the cheapest one may then be
                below 0, which is a finding about the table (`judgement.py`), but the mean network must be above 0.

        Raises:
            LatencyTableError: The cheapest network costs 0 or less.
        """
        if not fitted and self._total(lambda _, costs: min(costs), lambda _, values: float(values.min())) > 0:
            return self  # a lower bound, which is faster than to find the cheapest network
        what, cost = ("mean", self.mean) if fitted else ("fastest", self.smallest)
        if not cost > 0:
            raise LatencyTableError(
                f"{source} predicts {cost:.4g} {self.unit} for the {what} network, and a latency must be above 0; "
                "measure or fit the table again"
            )
        return self

    @cached_property
    def _positions(self) -> dict[str, dict[Any, int]]:
        return {label: {_key(name): i for i, name in enumerate(names)} for label, names in self.candidates.items()}

    def _position(self, label: str, candidate: object) -> int:
        positions = self._positions[label]
        for key in (_key(candidate), str(candidate)):  # tables have the names of candidates
            if key in positions:
                return positions[key]
        raise InputError(f"layer {label}: " + unknown_name("candidate", candidate, map(str, positions)))


def _key(candidate: Any) -> Any:
    """Convert a candidate to a dictionary key: an InputChoice names its chosen inputs by a list, which has no hash."""
    return tuple(map(_key, candidate)) if isinstance(candidate, list) else candidate
