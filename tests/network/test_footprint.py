"""Peak memory and file size from operators, against the exported ONNX graph and its file."""

from __future__ import annotations

import random
from math import prod

import onnx
import pytest
from torch import nn

from nni_proxyless.decoding.budgets import quantity_costs
from nni_proxyless.errors import InputError
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.footprint import file_bytes, network_file_bytes, network_peak_bytes, peak_values
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec

SMALL = SpaceSpec.from_yaml("mobilenetv2_digits")
CIFAR = SpaceSpec.from_yaml("mobilenetv2_cifar")
MOBILE = CIFAR.with_changes(width_mult=0.35, input_size=40)


def exported(spec: SpaceSpec, seed: int) -> tuple[list[Operator], bytes]:
    """Operators and ONNX file of a random network with trained-looking weights, none of which are equal."""
    architecture = random_architecture(spec, random.Random(seed))
    network = trained_looking(architecture.build())
    return spec.operators(architecture.choices), export_onnx(network, spec.input_shape, 1)


def trained_looking(network: nn.Module) -> nn.Module:
    """Give batch norms different values. Equal tensors would be stored once in an exported file."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def liveness_peak(model: bytes) -> int:
    """Largest number of values alive at once in a graph, executed in the order of its nodes; Clip works in place."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    sizes: dict[str, int] = {}
    for info in (*graph.input, *graph.value_info, *graph.output):
        sizes[info.name] = prod(dim.dim_value for dim in info.type.tensor_type.shape.dim)
    weights = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    constants = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    same: dict[str, str] = {}
    steps: list[tuple[set[str], str]] = []
    for node in nodes:
        read = {same.get(name, name) for name in node.input if name and name not in weights | constants}
        (written,) = node.output
        if node.op_type == "Clip":
            same[written] = next(iter(read))
        steps.append((read, same.get(written, written)))
    last = {name: number for number, (read, _) in enumerate(steps) for name in read}
    alive = {graph.input[0].name}
    peak = 0
    for number, (_, written) in enumerate(steps):
        alive.add(written)
        peak = max(peak, sum(sizes[name] for name in alive))
        alive = {name for name in alive if last.get(name, -1) > number}
    return peak


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spec", [SMALL, CIFAR, MOBILE], ids=["digits", "cifar", "narrow"])
def test_peak_memory_is_that_of_a_liveness_analysis_of_the_export(spec: SpaceSpec, seed: int) -> None:
    operators, model = exported(spec, seed)
    assert network_peak_bytes(operators) == 4 * liveness_peak(model)
    # The int8 file takes floats: before anything else, each value of the image is there as a float and in int8.
    image = (4 + 1) * prod(spec.input_shape)
    assert network_peak_bytes(operators, "int8", batch=3) == 3 * max(liveness_peak(model), image)


def test_the_int8_file_converts_an_image_of_floats() -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet").with_changes(width_mult=0.35)
    smallest = {layer.label: "skip" if "skip" in layer.names else layer.names[0] for layer in spec.layers}
    architecture = Architecture.of_space(spec, smallest)
    operators, model = spec.operators(smallest), export_onnx(trained_looking(architecture.build()), spec.input_shape, 1)
    graph = onnx.load_model_from_string(quantize_static(model)).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    (reader,) = [node for node in graph.node if graph.input[0].name in node.input]
    assert reader.op_type == "QuantizeLinear"
    assert network_peak_bytes(operators, "int8") == 5 * prod(spec.input_shape) > liveness_peak(model)
    assert quantity_costs("peak_memory_int8", spec).fixed == 5 * prod(spec.input_shape)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spec", [SMALL, MOBILE], ids=["digits", "narrow"])
def test_file_sizes_are_within_two_percent(spec: SpaceSpec, seed: int) -> None:
    operators, model = exported(spec, seed + 100)
    for estimate, size in (
        (network_file_bytes(operators), len(model)),
        (network_file_bytes(operators, "int8"), len(quantize_static(model))),
    ):
        assert estimate == pytest.approx(size, rel=0.02)
        assert estimate >= size  # so that a budget holds for the file


def test_a_residual_block_by_hand() -> None:
    block = Operator("mbconv", (8, 4, 4), (8, 4, 4), 3, 6)
    # While the depthwise convolution runs: the block's input, and 48 channels before and after it.
    assert peak_values(block) == 8 * 16 + 48 * 16 + 48 * 16
    plain = Operator("mbconv", (8, 4, 4), (16, 2, 2), 3, 1, 2)
    # Input and output of the depthwise convolution, which has the stride.
    assert peak_values(plain) == 8 * 16 + 8 * 4
    added = Operator("mbconv", (8, 4, 4), (8, 4, 4), 3, 1)
    assert peak_values(added) == 3 * 8 * 16
    # Two convolutions of 8 * 9 and 8 * 16 weights, 8 and 16 biases, one activation function.
    assert file_bytes(plain) == 4 * (72 + 128 + 8 + 16) + 2 * 424 + 283


def test_operators_that_do_not_follow_each_other_are_refused() -> None:
    block = Operator("mbconv", (8, 4, 4), (16, 2, 2), 3, 1, 2)
    with pytest.raises(InputError, match="does not fit"):
        network_peak_bytes([block, block])
    with pytest.raises(InputError, match="at least one"):
        network_peak_bytes([])
