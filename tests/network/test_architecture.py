from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_proxyless.errors import ArchitectureError
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.operators import total_activations
from nni_proxyless.network.space_spec import SpaceSpec
from tests.warm import run_warm


@pytest.fixture
def architecture(tiny_spec: SpaceSpec) -> Architecture:
    choices = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
    return Architecture.of_space(
        tiny_spec, choices, target="phone", budget_ms=3.0, predicted_latency_ms=2.5, metrics={"default": 0.9}, seed=7
    )


def test_round_trip_is_lossless(architecture: Architecture, tmp_path: Path) -> None:
    assert Architecture.load(architecture.save(tmp_path / "a" / "architecture.json")) == architecture


def test_candidates_of_every_kind_are_the_same_after_a_round_trip(tmp_path: Path) -> None:
    choices = {
        "k": (3, 1),
        "none": None,
        "inputs": [0, 2],
        "groups": [(1, 2), [3]],
        "rate": 0.5,
        "bias": True,
        "a": "x",
    }
    loaded = Architecture.load(Architecture("Mine", "0", choices).save(tmp_path / "architecture.json"))
    assert loaded.choices == choices
    assert [type(of) for of in loaded.choices.values()] == [type(of) for of in choices.values()]


def test_it_is_built_in_another_process_without_nni(architecture: Architecture, tmp_path: Path) -> None:
    path = architecture.save(tmp_path / "architecture.json")
    code = (
        "import sys; from nni_proxyless import Architecture; import torch;"
        f"a = Architecture.load({str(path)!r}); y = a.build().eval()(torch.zeros(2, 1, 8, 8));"
        "assert not any(m == 'nni' or m.startswith('nni.') for m in sys.modules), 'imports NNI';"
        "print(list(y.shape), a.parameters)"
    )
    out = run_warm(["python", "-c", code], tmp_path)
    assert out.returncode == 0, out.stderr
    parameters = sum(p.numel() for p in architecture.build().parameters())
    assert out.stdout.strip() == f"[2, 3] {parameters}"


def test_built_network_has_no_search_code(architecture: Architecture) -> None:
    modules = {type(module).__module__ for module in architecture.build().modules()}
    assert all(name.startswith("nni_proxyless.network.") or name.startswith("torch.nn") for name in modules)
    assert architecture.build()(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_another_space_is_refused(architecture: Architecture, tmp_path: Path, tiny_spec: SpaceSpec) -> None:
    path = architecture.save(tmp_path / "architecture.json")
    assert Architecture.load(path, tiny_spec) == architecture
    with pytest.raises(ArchitectureError, match=r"is of space 'tiny' .* not of 'mobilenetv2_digits'"):
        Architecture.load(path, SpaceSpec.from_yaml("mobilenetv2_digits"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "nni-proxyless/architecture@9"}, "schema must be"),
        ({"choices": {}}, "'choices' must map"),
        ({"choices": {"stage1_layer1": "k5_e2"}}, "missing .*stage1_layer2"),
        (
            {"choices": {"stage1_layer1": "k9_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}},
            "unknown candidate 'k9_e2'.*allowed",
        ),
        ({"measured_latency_ms": -1.0}, "must be a positive number or null"),
        ({"predicted_latency_ms": float("inf")}, "must be a positive number or null"),
        ({"surprise": 1}, "unknown keys"),
        ({"space": None}, "'space' must be a mapping"),
    ],
)
def test_bad_files_are_refused(architecture: Architecture, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.from_dict({**architecture.to_dict(), **change})


def test_a_description_changed_by_hand_is_noticed(architecture: Architecture) -> None:
    content = json.loads(json.dumps(architecture.to_dict()))
    content["space"]["spec"]["head"]["width"] = 99
    with pytest.raises(ArchitectureError, match="changed by hand"):
        Architecture.from_dict(content)


@pytest.mark.parametrize("text", ["[1, 2]", "{", "", "not json"])
def test_files_that_hold_no_mapping_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(text)
    with pytest.raises(ArchitectureError, match=str(path)):
        Architecture.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="No such file"):
        Architecture.load(tmp_path / "nothing.json")


def test_blocks_that_do_not_fit_together_are_refused() -> None:
    first = {"op": "mbconv", "in": 32, "out": 16, "kernel": 3, "expansion": 1, "stride": 1}
    layer = {"op": "mbconv", "in": 17, "out": 24, "kernel": 3, "expansion": 3, "stride": 2}
    with pytest.raises(ArchitectureError, match="do not follow"):
        Architecture.from_blocks([first, layer], stem_width=32, head_width=64)
    with pytest.raises(ArchitectureError, match="first block"):
        Architecture.from_blocks([layer], stem_width=32, head_width=64)
    with pytest.raises(ArchitectureError, match="cannot be skipped"):
        Architecture.from_blocks([first, {"op": "skip"}], stem_width=32, head_width=64)


def test_activations_are_counted_as_the_built_network_computes_them() -> None:
    architecture = Architecture.mobilenet_v2(0.35).for_images(64)
    network = architecture.build().eval()
    counted: list[int] = []
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.register_forward_hook(lambda _module, _inputs, output: counted.append(output[0].numel()))
    with torch.no_grad():
        network(torch.zeros(2, 3, 64, 64))
    assert total_activations(architecture.operators()) == sum(counted)
