"""The registry of measuring backends by name."""

from __future__ import annotations

from typing import Any

from ..backend_names import check_backend_names
from .analytic import FlopsBackend, ParamsBackend
from .base import Backend
from .command import CommandBackend
from .mnn import MnnBackend
from .ncnn import NcnnBackend
from .onnx_runtime import OnnxRuntimeBackend
from .openvino import OpenVinoBackend
from .pytorch import TorchBackend

BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend
    for backend in (
        TorchBackend,
        OnnxRuntimeBackend,
        OpenVinoBackend,
        MnnBackend,
        NcnnBackend,
        CommandBackend,
        FlopsBackend,
        ParamsBackend,
    )
}


def make_backend(name: str, **settings: Any) -> Backend:
    """Create a backend by its name.

    Args:
        name: Name of the backend, a key of `BACKENDS`.
        **settings: Arguments of the backend: `threads` and `batch` for all backends; `device` for `torch`; `dtype` for
            `onnxruntime` and `openvino`; `command`, `tool`, `pattern`, `unit`, `timeout_s`, `retries` and `device` for
            `command`.

    Raises:
        InputError: The name or a setting is unknown (the message lists the allowed ones), or a value is invalid.
        MissingDependencyError: The backend needs a package that is not installed.
    """
    check_backend_names(name, settings)
    return BACKENDS[name](**settings)
