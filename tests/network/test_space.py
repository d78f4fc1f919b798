"""Spaces and operators, compared with published networks and with counts on built modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from nni_proxyless import MobileNetV2Space
from nni_proxyless.errors import SpaceError
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.blocks import MBConv
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.space_spec import SpaceSpec, make_divisible, shipped_spaces
from nni_proxyless.supernet.entangling import align_candidates
from tests.helpers import REPOSITORY

PUBLISHED = {  # millions of parameters and multiply-adds at 224 x 224
    "proxyless_cpu": (4.362, 439.2),
    "proxyless_gpu": (7.120, 465.3),
    "proxyless_mobile": (4.081, 320.4),
    "proxyless_mobile_14": (6.858, 580.9),
}


def counted(network: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Count parameters and multiply-adds on a built network, independently of the formulas of `Operator`."""
    total = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    return sum(p.numel() for p in network.parameters()), total


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name: str, shared_data: Path) -> None:
    blocks = json.loads((shared_data / "architectures" / "published.json").read_text())[name]
    architecture = Architecture.from_blocks(
        blocks["blocks"], stem_width=blocks["stem_out"], head_width=blocks["head_out"], name=name
    )
    assert round(architecture.parameters / 1e6, 3) == PUBLISHED[name][0]
    assert round(architecture.multiply_adds / 1e6, 1) == PUBLISHED[name][1]
    assert counted(architecture.build(), (3, 224, 224)) == (architecture.parameters, architecture.multiply_adds)


@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_build_and_run(name: str) -> None:
    import random

    spec = SpaceSpec.from_yaml(name)
    architecture = random_architecture(spec, random.Random(0))
    network = architecture.build().eval()
    assert counted(network, spec.input_shape) == (architecture.parameters, architecture.multiply_adds)
    assert network(torch.zeros(2, *spec.input_shape)).shape == (2, spec.classes)


def test_imagenet_space_is_the_papers() -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet")
    assert spec.input_shape == (3, 224, 224)
    assert spec.stem.output_shape == (32, 112, 112)
    assert spec.first_block.output_shape == (16, 112, 112)
    assert len(spec.layers) == 21
    first = [layer for layer in spec.layers if layer.label.endswith("_layer1")]
    assert [op.output_shape[:2] for layer in first if (op := layer.candidates["k3_e3"])] == [
        (24, 56), (40, 28), (80, 14), (96, 14), (192, 7), (320, 7),
    ]  # fmt: skip
    assert all("skip" not in layer.candidates for layer in first)
    others = [layer for layer in spec.layers if layer not in first]
    assert all(layer.names == ("k3_e3", "k5_e3", "k7_e3", "k3_e6", "k5_e6", "k7_e6", "skip") for layer in others)
    assert spec.head.output_shape == (1280, 7, 7)
    assert spec.classifier.output_shape == (1000, 1, 1)


def test_model_space_has_one_labelled_choice_per_layer() -> None:
    space = MobileNetV2Space.from_yaml("mobilenetv2_digits")
    mutables = space.simplify()
    assert list(mutables) == [layer.label for layer in space.spec.layers]
    assert {label: tuple(m.values) for label, m in mutables.items()} == {
        layer.label: layer.names for layer in space.spec.layers
    }


def test_width_multiplier_rounds_to_multiples_of_8_and_never_shrinks_the_head() -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_imagenet")
    wide, narrow = spec.with_changes(width_mult=1.4), spec.with_changes(width_mult=0.5)
    assert wide.stem.output_shape[0] == 48  # 44.8 rounded to a multiple of 8
    assert wide.head.output_shape[0] == 1792
    assert narrow.stem.output_shape[0] == 16
    assert narrow.head.output_shape[0] == 1280
    assert spec.content_hash not in {wide.content_hash, narrow.content_hash}
    assert [make_divisible(w) for w in (1, 11, 12, 20, 33.6)] == [8, 16, 16, 24, 32]


def test_hash_says_what_a_space_is_not_what_it_is_called(tiny_spec: SpaceSpec) -> None:
    content = tiny_spec.to_dict()
    assert SpaceSpec.from_dict(json.loads(json.dumps(content))) == tiny_spec
    assert SpaceSpec.from_dict({**content, "name": "other"}).content_hash == tiny_spec.content_hash
    assert SpaceSpec.from_dict({**content, "classes": 4}).content_hash != tiny_spec.content_hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "x"}, "schema must be"),
        ({"clases": 3}, "unknown key 'clases'; did you mean 'classes'"),
        ({"classes": 0}, "'classes' must be a whole number from 1, got 0"),
        ({"stages": []}, "'stages' must be a list"),
        ({"stages": [{"width": 8, "depth": 1, "stride": 3}]}, r"'stride' must be one of \[1, 2\], got 3"),
        ({"candidates": {"kernels": [4], "expansions": [3]}}, "must be odd"),
        ({"candidates": {"kernels": [3, 3], "expansions": [3]}}, "different whole numbers"),
        ({"width_mult": float("nan")}, "'width_mult' must be a positive number"),
        ({"input": 3}, "'input' must be a mapping"),
    ],
)
def test_bad_descriptions_are_refused(tiny_spec: SpaceSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        SpaceSpec.from_dict({**tiny_spec.to_dict(), **change})


def test_unknown_space_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"unknown space 'mobilenetv2_digit'; did you mean 'mobilenetv2_digits'\?"):
        SpaceSpec.from_yaml("mobilenetv2_digit")
    bad = tmp_path / "space.yml"
    bad.write_text("- 1\n- 2\n")
    with pytest.raises(SpaceError, match="must be a mapping of keys to values, but holds a list"):
        SpaceSpec.from_yaml(bad)


def test_spaces_of_the_users_own_are_loaded_by_path(tmp_path: Path, tiny_spec: SpaceSpec) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(tiny_spec.to_dict()))
    assert SpaceSpec.from_yaml(path) == tiny_spec


def test_candidates_start_as_parts_of_the_largest() -> None:
    shape = (8, 8, 8)
    blocks = {
        (k, e): Operator("mbconv", shape, shape, k, e, 1).build() for k, e in ((3, 3), (7, 3), (3, 6), (5, 6), (7, 6))
    }
    align_candidates([*blocks.values(), nn.Identity()])
    small, large = blocks[(3, 3)], blocks[(7, 6)]
    assert isinstance(small, MBConv)
    assert isinstance(large, MBConv)
    assert torch.equal(small.conv_dw.weight, large.conv_dw.weight[:24, :, 2:5, 2:5])
    assert torch.equal(small.conv_pw.weight, large.conv_pw.weight[:24])
    assert torch.equal(small.conv_pwl.weight, large.conv_pwl.weight[:, :24])
    with torch.no_grad():
        small.conv_pw.weight.zero_()
    assert large.conv_pw.weight.abs().sum() > 0  # copies, not views


def test_search_spaces_are_shipped_from_the_top_level() -> None:
    assert {path.parent for path in shipped_spaces().values()} == {REPOSITORY / "search_spaces"}
