from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nni_proxyless import Architecture
from nni_proxyless.errors import ArchitectureError
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import save_weights

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}


@pytest.fixture
def found(tiny_spec: SpaceSpec) -> Architecture:
    return Architecture.of_space(tiny_spec, CHOICES)


def test_a_built_network_has_the_saved_weights_and_no_class_of_the_search(found: Architecture, tmp_path: Path) -> None:
    network = found.build()
    path = save_weights(network, tmp_path / "weights.pt")
    again = found.build(pretrained=path).eval()
    images = torch.randn(2, *found.require_spec().input_shape)
    torch.testing.assert_close(again(images), network.eval()(images), rtol=0, atol=0)
    rooms = {type(module).__module__ for module in again.modules()}
    assert rooms <= {"nni_proxyless.network.blocks", "nni_proxyless.network.plain_network"} | {
        r for r in rooms if r.startswith("torch.nn.")
    }
    assert found.build(pretrained=network.state_dict()) is not network


@pytest.mark.parametrize("other", [{"stage2_layer1": "k5_e1"}, {"stage1_layer2": "k3_e1"}, {"stage1_layer1": "k5_e1"}])
def test_weights_of_another_architecture_are_refused(
    found: Architecture, other: dict[str, str], tiny_spec: SpaceSpec, tmp_path: Path
) -> None:
    path = save_weights(Architecture.of_space(tiny_spec, {**CHOICES, **other}).build(), tmp_path / "weights.pt")
    with pytest.raises(ArchitectureError, match=r"weights.pt are weights of another architecture: (they|'blocks)"):
        found.build(pretrained=path)


def test_files_that_are_no_weights(found: Architecture, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="there is no file of weights"):
        found.build(pretrained=tmp_path / "none.pt")
    whole = save_weights(found.build(), tmp_path / "weights.pt").read_bytes()
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchitectureError, match="holds no weights, or it is truncated"):
        found.build(pretrained=truncated)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ArchitectureError, match="is not a state dict of tensors"):
        found.build(pretrained=tmp_path / "list.pt")


def test_nothing_in_a_file_of_weights_is_executed(found: Architecture, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"stem": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ArchitectureError, match="holds no weights"):
        found.build(pretrained=tmp_path / "trap.pt")
    assert not (tmp_path / "executed").exists()
