"""Sources of settings, such as a recipe's file and the command line. A later one overrides an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """Settings of one source. A later layer overrides an earlier one.

    Attributes:
        source: Name of the source in comments, such as `recipe file` or `command line`.
        values: Values by key.
        place: Name of the source in messages, such as `recipe FILE`. Empty if it is `source`.
    """

    source: str
    values: Mapping[str, Any]
    place: str = ""

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        return self.place or self.source


def merged(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the values of all layers by key."""
    return {str(key): value for layer in layers for key, value in layer.values.items()}
