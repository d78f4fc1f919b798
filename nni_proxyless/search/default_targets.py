"""Targets of a recipe that names none. This module imports no torch, so that a recipe can be checked without it."""

from __future__ import annotations

from typing import Any

DEFAULT_TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1},
}
