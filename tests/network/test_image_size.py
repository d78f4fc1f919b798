"""Images that are not square or have one channel, from the space to the network that is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from nni_proxyless import Architecture
from nni_proxyless.errors import InputError, RecipeError, SpaceError
from nni_proxyless.image_size import height_width, image_size, written
from nni_proxyless.latency import Calibration, LatencyTable
from nni_proxyless.latency.counts import counts_of_space
from nni_proxyless.network.catalogue import by_name
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.supernet.space import MobileNetV2Space
from tests.helpers import made_up_table

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}


def test_height_comes_before_width() -> None:
    assert height_width(96) == (96, 96)
    assert height_width((96, 160)) == (96, 160)
    assert image_size([96, 160]) == (96, 160)
    assert image_size([96, 96]) == 96
    assert (written(96), written((96, 160))) == (96, [96, 160])
    for value in (0, 4097, True, "96", [96], [1, 2, 3], [96, 0], [96, 1.5], None, {"height": 1}):
        assert image_size(value) is None


@pytest.fixture
def wide(tiny_spec: SpaceSpec) -> SpaceSpec:
    """Space for images of 9 x 14 pixels with two channels."""
    return tiny_spec.with_changes(input_size=[9, 14], input_channels=2)


def test_shapes_of_the_operators(wide: SpaceSpec) -> None:
    """Strides of 2 round up: 9 x 14, then 5 x 7, then 3 x 4."""
    assert wide.input_shape == (2, 9, 14)
    shapes = [operator.output_shape for operator in wide.operators(CHOICES)]
    assert shapes == [(8, 9, 14), (8, 9, 14), (8, 5, 7), (16, 3, 4), (16, 3, 4), (3, 1, 1)]
    # k5_e2: 8 -> 16 channels at 9 x 14, 5 x 5 depthwise and 16 -> 8 at 5 x 7.
    values = counts_of_space(wide)
    layer = dict(
        zip(values.columns, values.values[next(c for c in values.values if str(c.candidate) == "k5_e2")], strict=True)
    )
    assert layer["depthwise5_macs"] == 16 * 25 * 5 * 7
    assert layer["pointwise_macs"] == 8 * 16 * 9 * 14 + 16 * 8 * 5 * 7
    architecture = Architecture.of_space(wide, CHOICES)
    stem, first = 2 * 8 * 9 * 9 * 14, (8 * 9 + 8 * 8) * 9 * 14
    last = (8 * 9 + 8 * 16) * 3 * 4
    head = 16 * 16 * 3 * 4 + 16 * 3
    assert architecture.multiply_adds == stem + first + 16 * 25 * 35 + 8 * 16 * 126 + 16 * 8 * 35 + last + head


def test_the_network_and_the_supernet_have_these_shapes(wide: SpaceSpec) -> None:
    images = torch.randn(2, 2, 9, 14)
    seen = []
    network = Architecture.of_space(wide, CHOICES).build().eval()
    for module in (network.stem, network.blocks[1], network.head):
        module.register_forward_hook(lambda _m, _i, output: seen.append(tuple(output.shape[1:])))
    assert network(images).shape == (2, 3)
    assert seen == [(8, 9, 14), (8, 5, 7), (16, 3, 4)]
    supernet = MobileNetV2Space(wide)
    assert isinstance(supernet.stem.conv, nn.Conv2d)
    assert supernet.stem.conv.in_channels == 2


def test_it_is_written_and_read_back(wide: SpaceSpec, tmp_path: Path) -> None:
    assert wide.to_dict()["input"] == {"channels": 2, "size": [9, 14]}
    assert SpaceSpec.from_dict(yaml.safe_load(yaml.safe_dump(wide.to_dict()))) == wide
    path = Architecture.of_space(wide, CHOICES).save(tmp_path / "architecture.json")
    assert Architecture.load(path).require_spec() == wide
    costs = dict.fromkeys(wide.distinct_operators(), 1.0)
    made_up_table(costs, Calibration(1.0, 0.0, 2, 0.0), wide.name).save(tmp_path / "table.yml")
    assert LatencyTable.load(tmp_path / "table.yml").costs(wide).of(CHOICES) == pytest.approx(6.0)


def test_squares_have_the_same_hash_in_either_form(tiny_spec: SpaceSpec) -> None:
    """Hashes of version 0.1 are those of the one number."""
    assert replace(tiny_spec, input_size=(8, 8)) == tiny_spec
    content = {**tiny_spec.to_dict(), "input": {"channels": 1, "size": [8, 8]}}
    assert SpaceSpec.from_dict(content).content_hash == tiny_spec.content_hash
    assert SpaceSpec.from_yaml("mobilenetv2_digits").to_dict()["input"] == {"channels": 1, "size": 32}
    assert tiny_spec.with_changes(input_size=[8, 9]).content_hash != tiny_spec.content_hash


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ([8, 9, 10], r"'size' must be a whole number from 1 or \[height, width\], got \[8, 9, 10\]"),
        ([8, 10_000], r"'size' must be \[height, width\], whole numbers from 1 to 4096"),
        (10_000, "'size' must be a whole number from 1 to 4096, got 10000"),
    ],
)
def test_wrong_sizes(size: Any, message: str, tiny_spec: SpaceSpec) -> None:
    with pytest.raises(SpaceError, match=message):
        SpaceSpec.from_dict({**tiny_spec.to_dict(), "input": {"channels": 1, "size": size}})
    with pytest.raises(RecipeError, match=message.replace("size", "input_size")):
        Recipe.from_dict({"input_size": size})


def test_recipes_take_both_forms() -> None:
    assert Recipe.from_dict({"input_size": 96}).input_size == 96
    assert Recipe.from_dict({"input_size": [96.0, 160]}).input_size == [96, 160]
    assert Recipe.from_dict({"input_size": [96, 96]}).input_size == 96
    assert Recipe.from_dict({}).input_size is None
    assert Recipe.from_dict({"input_size": [96, 160]}).to_dict()["input_size"] == [96, 160]


def test_an_architecture_for_other_images_loses_its_latencies(tiny_spec: SpaceSpec) -> None:
    found = Architecture.of_space(tiny_spec, CHOICES, predicted_latency_ms=1.0, measured_latency_ms=1.1)
    assert found.for_images(None) is found
    assert found.for_images(8, 1) == found
    other = found.for_images((6, 10), 3)
    assert other.require_spec().input_shape == (3, 6, 10)
    assert (other.predicted_latency_ms, other.measured_latency_ms) == (None, None)
    assert other.space_hash == other.require_spec().content_hash


@pytest.mark.parametrize("name", ["mobilenet_v2_0.35", "proxyless_cpu"])
def test_named_networks_take_the_sizes_of_a_space(name: str, tiny_spec: SpaceSpec) -> None:
    like = replace(tiny_spec, input_size=(48, 80), classes=7)
    spec, choices = by_name(name, like)
    assert (spec.input_shape, spec.classes) == ((1, 48, 80), 7)
    assert Architecture.of_space(spec, choices).build().eval()(torch.randn(1, 1, 48, 80)).shape == (1, 7)


def test_unknown_names_list_all() -> None:
    with pytest.raises(InputError) as caught:
        by_name("resnet18")
    names = ("mobilenet_v2", "mobilenet_v2_0.75", "proxyless_cpu", "proxyless_gpu", "proxyless_mobile")
    assert all(name in str(caught.value) for name in (*names, "proxyless_mobile_14"))
