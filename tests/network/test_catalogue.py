"""Networks known by name, compared with their published sizes and with torchvision's MobileNetV2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v2

from nni_proxyless import Architecture
from nni_proxyless.errors import ArchitectureError
from nni_proxyless.network.catalogue import PUBLISHED, by_name
from nni_proxyless.network.space_spec import SpaceSpec

# Parameters and multiply-adds in millions, as published with ProxylessNAS.
SIZES = {
    "proxyless_cpu": (4.362, 439.2),
    "proxyless_gpu": (7.120, 465.3),
    "proxyless_mobile": (4.081, 320.4),
    "proxyless_mobile_14": (6.858, 580.9),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name: str) -> None:
    found = Architecture.published(name)
    parameters, multiply_adds = SIZES[name]
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=5e-4)
    assert found.multiply_adds / 1e6 == pytest.approx(multiply_adds, abs=0.05)
    assert sum(p.numel() for p in found.build().parameters()) == found.parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_those_of_the_paper_block_by_block(name: str, shared_data: Path) -> None:
    known = json.loads((shared_data / "architectures" / "published.json").read_text())[name]
    theirs = Architecture.from_blocks(known["blocks"], stem_width=known["stem_out"], head_width=known["head_out"])
    assert Architecture.published(name).operators() == theirs.operators()


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_mobilenet_v2_is_torchvisions(width: float) -> None:
    found = Architecture.mobilenet_v2(width).build()
    theirs = mobilenet_v2(width_mult=width)
    shapes = [tuple(p.shape) for p in theirs.parameters()]
    assert [tuple(p.shape) for p in found.parameters()] == shapes
    with torch.no_grad():  # with the same weights and batch-norm epsilon, both networks compute the same outputs
        for mine, other in zip(found.state_dict().values(), theirs.state_dict().values(), strict=True):
            mine.copy_(other)
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3
        images = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(found.eval()(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)


def test_mobilenet_v2_for_other_data_takes_their_stages() -> None:
    like = SpaceSpec.from_yaml("mobilenetv2_digits")
    found = Architecture.mobilenet_v2(0.5, like)
    spec = found.require_spec()
    assert (spec.input_shape, spec.classes) == (like.input_shape, like.classes)
    assert [(s.depth, s.stride) for s in spec.stages] == [(s.depth, s.stride) for s in like.stages]
    assert set(found.choices.values()) == {"k3_e6"}
    assert found.build()(torch.randn(2, 1, 32, 32)).shape == (2, 10)


def test_names() -> None:
    assert by_name("mobilenet_v2") == by_name("mobilenet_v2_1")
    assert by_name("mobilenet_v2_0.75")[0].width_mult == 0.75
    assert by_name("proxyless_gpu")[0].name == "proxyless_gpu"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("proxyless_cpus", "unknown network 'proxyless_cpus'; did you mean 'proxyless_cpu'"),
        ("mobilenet_v2_wide", "'wide' is not a width; write it like mobilenet_v2_0.75"),
        ("mobilenet_v2_0", "width_mult must be a positive number, from 0.01 to 100, got 0.0"),
        ("mobilenet_v2_inf", "width_mult must be a positive number"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        by_name(name)
