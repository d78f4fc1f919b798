"""The registry of device tools by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ...errors import InputError, RunError, unknown_name
from .executorch import executorch
from .mnn import mnn_benchmark, mnn_v2basic
from .ncnn import benchncnn
from .onnx_runtime import onnxruntime_perf_test
from .openvino import benchmark_app
from .qualcomm import ai_hub
from .reading import Reading
from .tensorrt import trtexec
from .tflite import benchmark_model, litert_benchmark
from .timers import timeit

Parser = Callable[[str], Reading]

# The parsers get everything that the program printed: stdout, then stderr.
TOOLS: dict[str, Parser] = {
    "ai_hub": ai_hub,
    "benchmark_app": benchmark_app,
    "benchmark_model": benchmark_model,
    "benchncnn": benchncnn,
    "executorch": executorch,
    "litert-benchmark": litert_benchmark,
    "mnn_benchmark": mnn_benchmark,
    "mnn_v2basic": mnn_v2basic,
    "onnxruntime_perf_test": onnxruntime_perf_test,
    "timeit": timeit,
    "trtexec": trtexec,
}
# Other names of the programs themselves.
_ALIASES = {
    "benchmark.out": "mnn_benchmark",
    "executor_runner": "executorch",
    "litert_benchmark": "litert-benchmark",
    "mnnv2basic": "mnn_v2basic",
    "mnnv2basic.out": "mnn_v2basic",
    "qai_hub": "ai_hub",
    "qai-hub": "ai_hub",
    "qnn_executor_runner": "executorch",
    "torch.utils.benchmark": "timeit",
}


def find_tool(name: object) -> str:
    """Return the name of a tool in `TOOLS`; its program's name is understood too, such as `benchmark.out`.

    Raises:
        InputError: There is no such tool. The message lists all tools.
    """
    asked = str(name).strip().lower()
    known = _ALIASES.get(asked, asked)
    if known not in TOOLS:
        raise InputError(unknown_name("tool", name, TOOLS))
    return known


def read_by_tools(output: str) -> dict[str, Reading]:
    """Read an output by every tool, and return the latencies by the tools that could have printed it."""
    found = {}
    for name, parse in TOOLS.items():
        with contextlib.suppress(RunError):
            found[name] = parse(output)
    return found
