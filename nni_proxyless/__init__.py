"""ProxylessNAS for Microsoft NNI: hardware-aware architecture search with measured latencies.

The public names are loaded on first use, so that the mathematics and the latency tools work where NNI is not
needed, and so that a trial asks NNI's manager for its parameters before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architecture import Architecture
    from .latency import LatencyTable
    from .profiler import LatencyProfiler
    from .space import MobileNetV2Space
    from .strategy import ProxylessNAS

__version__ = "0.1.0"
_HOMES = {
    "Architecture": "architecture",
    "LatencyProfiler": "profiler",
    "LatencyTable": "latency",
    "MobileNetV2Space": "space",
    "ProxylessNAS": "strategy",
}
__all__ = [
    "Architecture",
    "LatencyProfiler",
    "LatencyTable",
    "MobileNetV2Space",
    "ProxylessNAS",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
