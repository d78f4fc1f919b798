"""What a table can have an entry for.

* `Operator`: an operator with all that its cost depends on, measured alone (`operators.py`).
* `Choice`: a candidate of a layer, known by its names only: what whole-network latencies can tell (`fit.py`).
* `ModuleCall`: a module of a model space that is not ours, such as NNI's hub (`profiler.py`), or an operator of a
  published table that our spaces do not have (`published.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import InputError
from ..network.operators import Operator


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
        """Inverse of `to_dict`.

        Raises:
            InputError: A name is missing or no text.
        """
        return cls(_text(content, "layer"), _text(content, "candidate"))

    def __str__(self) -> str:
        return f"{self.candidate} in {self.layer}"


@dataclass(frozen=True)
class ModuleCall:
    """A module applied to inputs of given shapes.

    Attributes:
        module: What identifies it: type and settings, as PyTorch prints them, or the name a publisher gave it.
        inputs: Shapes of its inputs for one image, without the batch dimension.
    """

    module: str
    inputs: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "module", "module": self.module, "inputs": [list(shape) for shape in self.inputs]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ModuleCall:
        """Inverse of `to_dict`.

        Raises:
            InputError: A field is missing or of a wrong type.
        """
        shapes = content.get("inputs")
        good = isinstance(shapes, list) and all(
            isinstance(shape, list) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
            for shape in shapes
        )
        if not isinstance(shapes, list) or not good:
            raise InputError(f"module field 'inputs' must be a list of shapes, got {shapes!r}")
        return cls(_text(content, "module"), tuple(tuple(shape) for shape in shapes))

    def __str__(self) -> str:
        first = self.module.split("\n", 1)[0]
        return f"{first if len(first) < 60 else first[:57] + '...'} on {list(map(list, self.inputs))}"


Entry: TypeAlias = Operator | Choice | ModuleCall


def entry_from_dict(content: Mapping[str, Any]) -> Entry:
    """The entry that a row of a file describes, by its `kind`.

    Raises:
        InputError: The kind is unknown, or a field is missing, of a wrong type or out of range.
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
        raise InputError(f"{content.get('kind')} field '{key}' must be a text, got {value!r}")
    return value
