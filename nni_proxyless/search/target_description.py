"""The description of a hardware target in a recipe, and its checks. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, LatencyTableError, RecipeError, shown, unknown_name
from ..files.reading import open_regular, user_path
from ..files.writing import check_name
from ..latency.backend_names import check_backend_names

_BACKEND_KEYS = (
    "backend", "threads", "batch", "dtype", "device", "command", "tool", "pattern", "unit", "timeout_s", "retries",
)  # fmt: skip
_KEYS = ("table", *_BACKEND_KEYS)
_T = TypeVar("_T", bound="TargetDescription")

DEFAULT_TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1},
}


@dataclass(frozen=True)
class TargetDescription:
    """Device for which a search optimises the latency, as a recipe describes it.

    Attributes:
        name: Name of the target in recipes and results.
        table: File of the latency table that predicts latencies; `None` if the backend measures the table.
        backend: Name of the backend that measures; `None` if nothing is measured. With a table, it measures only the
            networks that the search finds.
        settings: Settings of the backend, as `make_backend` takes them.
    """

    name: str
    table: Path | None = None
    backend: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls: type[_T], name: str, content: object, folder: Path) -> _T:
        """Check the description of a target in a recipe, and create the target.

        Args:
            name: Name of the target.
            content: Mapping with `table`, or with `backend` and its settings, such as `threads` and `command`.
            folder: Folder that a relative path starts from.

        Raises:
            RecipeError: The name could lead out of a folder, the description is not a mapping, a key is unknown, a path
                is not a string, neither table nor backend is given, or a setting of the backend is given without it.
        """
        check_name(name, "the name of a target", RecipeError)
        if not isinstance(content, Mapping):
            raise RecipeError(f"target '{name}' must be a mapping with {', '.join(_KEYS)}, got {shown(content)}")
        for key in content:
            if key not in _KEYS:
                raise RecipeError(f"target '{name}': " + unknown_name("key", key, _KEYS))
        table, backend = content.get("table"), content.get("backend")
        if table is None and backend is None:
            raise RecipeError(
                f"target '{name}' needs 'table', a file that predicts latencies, or 'backend', which measures, or both"
            )
        if table is not None and not (isinstance(table, str) and table):
            raise RecipeError(f"target '{name}': table must be a path, got {shown(table)}")
        if backend is not None and not isinstance(backend, str):
            raise RecipeError(f"target '{name}': backend must be the name of a backend, got {shown(backend)}")
        settings = {k: v for k, v in content.items() if k in _BACKEND_KEYS[1:]}
        if backend is None and settings:
            raise RecipeError(f"target '{name}': {', '.join(settings)} needs 'backend', which measures")
        return cls(
            name,
            table=None if table is None else folder / user_path(table, "latency table", RecipeError),
            backend=backend,
            settings=settings,
        )

    def check(self) -> None:
        """Check that the backend and its settings exist, and that the file of the table can be opened.

        Raises:
            InputError: One of them does not exist.
        """
        if self.backend is not None:
            try:
                check_backend_names(self.backend, self.settings)
            except InputError as reason:
                raise RecipeError(f"target '{self.name}': {reason}") from reason
        if self.table is not None:
            open_regular(self.table, "latency table", LatencyTableError).close()
