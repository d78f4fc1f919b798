"""The three kinds of entries of a latency table.

* `Operator`: an operator with everything that its cost depends on, measured alone (`network/operators.py`).
* `Choice`: a candidate of a layer, identified only by the names of the layer and of the candidate. Fits to the
  latencies of whole networks have such entries (`fitting/fit.py`).
* `ModuleCall`: a module of a model space that this package does not define, such as one of NNI's hub
  (`nni_spaces/profiler.py`), or an operator of a published table that the shipped spaces do not have (`published.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import InputError, clipped, shown
from ..network.operators import OPERATOR_FIELDS, Operator
from ..values import is_whole


@dataclass(frozen=True)
class Choice:
    """A candidate of a layer.

    Attributes:
        layer: Label of the layer.
        candidate: Name of the candidate.
    """

    layer: str
    candidate: str

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "choice", "layer": self.layer, "candidate": self.candidate}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Choice:
        """Create the choice from the dictionary that `to_dict` returns.

        Raises:
            InputError: A name is missing or is not a non-empty string.
        """
        return cls(_text(content, "layer"), _text(content, "candidate"))

    def __str__(self) -> str:
        return f"{clipped(self.candidate)} in {clipped(self.layer)}"


@dataclass(frozen=True)
class ModuleCall:
    """A module applied to inputs of given shapes.

    Attributes:
        module: Identifier of the module: its type and settings as PyTorch prints them, or its published name.
        inputs: Shapes of the module's inputs for one image, without the batch dimension.
    """

    module: str
    inputs: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "module", "module": self.module, "inputs": [list(shape) for shape in self.inputs]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModuleCall:
        """Create the module call from the dictionary that `to_dict` returns.

        Raises:
            InputError: A field is missing or has the wrong type.
        """
        shapes = content.get("inputs")
        good = isinstance(shapes, list) and all(
            isinstance(shape, list) and all(is_whole(n, 1) for n in shape) for shape in shapes
        )
        if not isinstance(shapes, list) or not good:
            raise InputError(f"module field 'inputs' must be a list of shapes, got {shown(shapes)}")
        return cls(_text(content, "module"), tuple(tuple(shape) for shape in shapes))

    def __str__(self) -> str:
        first = self.module.split("\n", 1)[0]
        return f"{first if len(first) < 60 else first[:57] + '...'} on {list(map(list, self.inputs))}"


FIELDS = ("kind", "layer", "candidate", "module", "inputs", *OPERATOR_FIELDS)  # that rows of a table file may have
Entry: TypeAlias = Operator | Choice | ModuleCall


def entry_from_dict(content: Mapping[str, Any]) -> Entry:
    """Create the entry that a row of a table file describes; the row's `kind` selects the class.

    Raises:
        InputError: The kind is unknown, or a field is missing, has the wrong type or is out of range.
    """
    kind = content.get("kind")
    if kind == "choice":
        return Choice.from_dict(content)
    if kind == "module":
        return ModuleCall.from_dict(content)
    return Operator.from_dict(content)


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{content.get('kind')} field '{key}' must be a string, got {shown(value)}")
    return value
