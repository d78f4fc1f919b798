"""Names of the measuring backends, their settings and the device tools. This module imports nothing slow.

So the help can list them, and a target can be checked before torch is imported. `tests/latency/test_backend_names.py`
compares them with the backends and tools themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InputError, unknown_name

_OF_ALL = ("threads", "batch")
BACKEND_SETTINGS: dict[str, tuple[str, ...]] = {
    "torch": (*_OF_ALL, "device"),
    "onnxruntime": (*_OF_ALL, "dtype"),
    "openvino": (*_OF_ALL, "dtype"),
    "mnn": _OF_ALL,
    "ncnn": _OF_ALL,
    "command": (*_OF_ALL, "command", "pattern", "unit", "timeout_s", "retries", "device", "tool"),
    "flops": _OF_ALL,
    "params": _OF_ALL,
}
TOOL_NAMES = (
    "ai_hub", "benchmark_app", "benchmark_model", "benchncnn", "executorch", "litert-benchmark", "mnn_benchmark",
    "mnn_v2basic", "onnxruntime_perf_test", "timeit", "trtexec",
)  # fmt: skip


def check_backend_names(name: str, settings: Iterable[str]) -> None:
    """Check the name of a backend and the names of its settings, but not their values.

    Raises:
        InputError: The name or a setting is unknown. The message lists the allowed ones.
    """
    if name not in BACKEND_SETTINGS:
        raise InputError(unknown_name("latency backend", name, BACKEND_SETTINGS))
    for key in settings:
        if key not in BACKEND_SETTINGS[name]:
            raise InputError(f"backend {name}: " + unknown_name("setting", key, BACKEND_SETTINGS[name]))
