"""ProxylessNAS for Microsoft NNI: hardware-aware architecture search with measured latencies.

The public names are loaded on first use, so that the mathematics and the latency tools work where NNI is not
needed, and so that a trial asks NNI's manager for its parameters before torch is imported.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .adapters.import_hook import install
from .lazy import OldModules, lazy_names

if TYPE_CHECKING:
    from .latency.table import LatencyTable
    from .network.architecture import Architecture
    from .nni_spaces.profiler import LatencyProfiler
    from .strategies.proxyless import ProxylessNAS
    from .supernet.space import MobileNetV2Space

__version__ = "0.1.0"
__all__ = [
    "Architecture",
    "LatencyProfiler",
    "LatencyTable",
    "MobileNetV2Space",
    "ProxylessNAS",
    "__version__",
]
__getattr__ = lazy_names(
    __name__,
    {
        "Architecture": "network.architecture",
        "LatencyProfiler": "nni_spaces.profiler",
        "LatencyTable": "latency.table",
        "MobileNetV2Space": "supernet.space",
        "ProxylessNAS": "strategies.proxyless",
    },
)
install()
sys.meta_path.append(OldModules())  # last: consulted only where there is no module of that name


def __dir__() -> list[str]:
    return sorted(__all__)
