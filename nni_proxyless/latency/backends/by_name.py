"""The measuring backends by name."""

from __future__ import annotations

import inspect
from typing import Any

from ...errors import InputError, unknown_name
from .analytic import FlopsBackend, ParamsBackend
from .base import Backend
from .command import CommandBackend
from .onnx_runtime import OnnxRuntimeBackend
from .pytorch import TorchBackend

BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend for backend in (TorchBackend, OnnxRuntimeBackend, CommandBackend, FlopsBackend, ParamsBackend)
}


def make_backend(name: str, **settings: Any) -> Backend:
    """The backend of that name.

    Args:
        name: `torch`, `onnxruntime`, `command`, `flops` or `params`.
        **settings: `threads`, `batch` and what the backend has of its own: `device` (torch), `dtype` (onnxruntime),
            `command`, `pattern`, `unit`, `timeout_s`, `retries`, `device` (command).

    Raises:
        InputError: There is none of that name or it has no such setting; the message lists what exists.
        MissingDependencyError: It needs a package that is not installed.
    """
    if name not in BACKENDS:
        raise InputError(unknown_name("latency backend", name, BACKENDS))
    allowed = list(inspect.signature(BACKENDS[name]).parameters)
    for key in settings:
        if key not in allowed:
            raise InputError(f"backend {name}: " + unknown_name("setting", key, allowed))
    return BACKENDS[name](**settings)
