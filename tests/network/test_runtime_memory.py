"""Peak memory from operators, against what ONNX Runtime allocates for the activations of the exported network.

ONNX Runtime plans one block of memory for all activations between input and output, and allocates it in the second
run. The log of its arena has the size of the block. It may be larger than the largest sum of live activations, because
of how ONNX Runtime packs them: it gives the memory of a dead activation to a later one only if both have the same
shape, and it puts all others into the best-fitting gap. `packed` does the same from the graph, and must give the same
size.
"""

from __future__ import annotations

import re
import subprocess
import sys
from math import prod
from pathlib import Path

import onnx
import pytest

from nni_proxyless.network.footprint import network_peak_bytes
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec

from .test_footprint import CIFAR, MOBILE, SMALL, exported

_IN_PLACE = ("Clip", "Flatten", "Reshape")
_ALIGNMENT = 64
# The arena takes from the system what is asked of it, instead of the next power of 2. `EXTENDED` leaves out the layouts
# of a processor (NCHWc), which pad channels.
_RUNS = """
import sys
import numpy
import onnxruntime as runtime
runtime.set_default_logger_severity(0)
place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
runtime.create_and_register_allocator(place, runtime.OrtArenaCfg({"arena_extend_strategy": 1}))
options = runtime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 0
options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
options.add_session_config_entry("session.use_env_allocators", "1")
session = runtime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(source,) = session.get_inputs()
for number in range(3):
    print(f"run {number}", file=sys.stderr, flush=True)
    session.run(None, {source.name: numpy.zeros(source.shape, numpy.float32)})
"""


def allocated(model: bytes, folder: Path) -> int:
    """Bytes of the block that ONNX Runtime allocates for the activations of a network."""
    path = folder / "network.onnx"
    path.write_bytes(model)
    ended = subprocess.run([sys.executable, "-c", _RUNS, str(path)], capture_output=True, text=True, check=True)
    _, *runs = re.split(r"^run \d$", ended.stderr, flags=re.MULTILINE)
    first, second, third = ([int(n) for n in re.findall(r"Extended allocation by (\d+) bytes", run)] for run in runs)
    assert len(first) > 1  # one after the other, while the plan is made
    assert third == []
    (block,) = second
    return block


def packed(model: bytes) -> int:
    """Bytes of the block by the rules of ONNX Runtime's planner, from the graph alone."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    shapes = {
        info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    outside = {graph.input[0].name, *(output.name for output in graph.output)}
    same: dict[str, str] = {}
    steps: list[tuple[list[str], str | None]] = []
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        read = [same.get(name, name) for name in node.input if name and name not in constants]
        (written,) = node.output
        if node.op_type in _IN_PLACE:
            same[written] = read[0]
        steps.append((read, None if node.op_type in _IN_PLACE or written in outside else written))
    last = {name: number for number, (read, _) in enumerate(steps) for name in read}

    block_of: dict[str, str] = {}
    begin: dict[str, int] = {}
    end: dict[str, int] = {}
    dead: list[str] = []
    for number, (read, written) in enumerate(steps):
        if written is not None:
            block = next((one for one in dead if shapes[one] == shapes[written]), written)
            if block in dead:
                dead.remove(block)
            block_of[written] = block
            begin.setdefault(block, number)
            end[block] = last[written]
        dead[:0] = [block_of[name] for name in dict.fromkeys(read) if last[name] == number and name in block_of]

    placed: dict[str, tuple[int, int]] = {}
    total = 0
    for number in range(len(steps)):
        for block in [block for block, start in begin.items() if start == number]:
            size = -(-4 * prod(shapes[block]) // _ALIGNMENT) * _ALIGNMENT
            gaps, offset = [], 0
            for start, length in sorted(placed.values()):
                gaps.append((start - offset, offset))
                offset = start + length
            gaps.append((total - offset, offset))
            fitting = [(gap, start) for gap, start in gaps if gap >= size]
            start = min(fitting)[1] if fitting else offset
            placed[block] = (start, size)
            total = max(total, start + size)
        placed = {block: place for block, place in placed.items() if end[block] > number}
    return total


def check(spec: SpaceSpec, seed: int, folder: Path) -> None:
    operators, model = exported(spec, seed)
    found = allocated(model, folder)
    assert found == packed(model)
    # The image itself is in the estimate, and not in the block.
    assert found >= network_peak_bytes(operators) - 4 * prod(spec.input_shape)
    assert found <= 2 * network_peak_bytes(operators)


def test_the_block_of_onnx_runtime_is_the_estimate_or_is_packed_worse(tmp_path: Path) -> None:
    check(SMALL, 0, tmp_path)
    check(MOBILE, 1, tmp_path)


def test_the_block_of_a_wide_network_is_the_estimate(tmp_path: Path) -> None:
    operators, model = exported(CIFAR, 0)
    assert allocated(model, tmp_path) == network_peak_bytes(operators)
    assert allocated(quantize_static(model), tmp_path) == network_peak_bytes(operators, "int8")


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SMALL, CIFAR, MOBILE], ids=["digits", "cifar", "narrow"])
def test_the_blocks_of_other_networks(spec: SpaceSpec, tmp_path: Path) -> None:
    for seed in range(2, 7):
        check(spec, seed, tmp_path)
