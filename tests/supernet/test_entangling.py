"""Candidates that train the same weights, compared with networks that are trained alone."""

from __future__ import annotations

import copy

import pytest
import torch

from nni_proxyless import MobileNetV2Space
from nni_proxyless.network.blocks import MBConv
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.supernet.entangling import entangle
from nni_proxyless.training.image_classification import ImageClassification
from nni_proxyless.training.sgd import make_sgd


def candidates_of(space: MobileNetV2Space, layer: int) -> dict[str, MBConv]:
    found = space.blocks[layer + 1].named_children()
    return {name: block for name, block in found if isinstance(block, MBConv)}


def assert_entangled(blocks: dict[str, MBConv]) -> None:
    """Check that the weights of each block equal the expected part of the largest block's weights."""
    largest = blocks["k7_e6"]
    for name, block in blocks.items():
        kernel, hidden = int(name[1]), block.conv_dw.out_channels
        centre = slice(3 - kernel // 2, 4 + kernel // 2)
        assert torch.equal(block.conv_pw.weight, largest.conv_pw.weight[:hidden])
        assert torch.equal(block.conv_pwl.weight, largest.conv_pwl.weight[:, :hidden])
        assert torch.equal(block.conv_dw.weight, largest.conv_dw.weight[:hidden, :, centre, centre])


def test_entangled_candidates_train_the_same_weights() -> None:
    """A step on one candidate changes it like a network that is trained alone, and changes the overlapping weights."""
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")
    space = MobileNetV2Space(spec, entangled=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    entangle(space)  # again, because the change of memory format has copied the weights
    names = list(candidates_of(space, 0))
    assert {"k3_e3", "k5_e3", "k7_e6"} <= set(names)
    draw = torch.Generator().manual_seed(0)
    optimizer = make_sgd(space.parameters(), 0.1, 0.9, 1e-2)
    alone: dict[int, torch.optim.SGD] = {}
    networks = {}
    for step in range(6):
        block = candidates_of(space, 0)[names[(2 * step) % len(names)]]
        x = torch.randn(4, block.conv_pw.in_channels, 8, 8, generator=draw)
        if id(block) not in alone:
            networks[id(block)] = copy.deepcopy(block)  # this copy has separate weights
            alone[id(block)] = torch.optim.SGD(
                networks[id(block)].parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=False
            )
        plain = networks[id(block)]
        plain.load_state_dict(block.state_dict())
        for network, by in ((plain, alone[id(block)]), (block, optimizer)):
            by.zero_grad()
            network(x).square().mean().backward()
            by.step()
        for ours, theirs in zip(block.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert_entangled(candidates_of(space, 0))
    norms = {name: block.bn2.weight for name, block in candidates_of(space, 0).items()}
    assert len({weight.data_ptr() for weight in norms.values()}) == len(norms)


def test_blocks_without_an_expansion_share_with_their_like_only(tiny_spec: SpaceSpec) -> None:
    """Their hidden channels are the input channels, while expansions compute theirs from the input."""
    space = MobileNetV2Space(tiny_spec, entangled=True)
    blocks = candidates_of(space, 1)  # k3_e1, k5_e1, k3_e2, k5_e2
    with torch.no_grad():
        blocks["k3_e1"].conv_dw.weight.fill_(7.0)
    assert bool((blocks["k5_e1"].conv_dw.weight[:, :, 1:4, 1:4] == 7.0).all())
    assert not bool((blocks["k5_e2"].conv_dw.weight == 7.0).any())


def test_entangled_weights_survive_a_state_dict(tiny_spec: SpaceSpec) -> None:
    first, second = (MobileNetV2Space(tiny_spec, entangled=True) for _ in range(2))
    second.load_state_dict(first.state_dict())
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        candidates_of(second, 0)["k5_e2"].conv_pw.weight.zero_()
    assert not bool(candidates_of(second, 0)["k3_e2"].conv_pw.weight.any())  # the memory is still shared
    assert bool(candidates_of(first, 0)["k3_e2"].conv_pw.weight.any())


@pytest.mark.parametrize("momentum", [0.0, 0.9])  # only SGD with momentum is fused
def test_a_step_on_all_candidates_is_the_sum_of_theirs(momentum: float) -> None:
    """DARTS trains all candidates at once. The first step is w - lr (1 + momentum) Σ gradients where they overlap."""
    space = MobileNetV2Space(SpaceSpec.from_yaml("mobilenetv2_digits"), entangled=True)
    module = ImageClassification(
        learning_rate=0.1, momentum=momentum, weight_decay=0.0, label_smoothing=0.0, total_steps=9, channels_last=False
    )
    module.set_model(space)
    optimizer = module.configure_optimizers()["optimizer"]
    # Overlapping weights must not be updated at the same time, as PyTorch would do on CUDA.
    assert {group["foreach"] for group in optimizer.param_groups} == {False}
    blocks = candidates_of(space, 0)
    largest = blocks["k7_e6"].conv_dw.weight
    expected, draw = largest.detach().clone(), torch.Generator().manual_seed(0)
    for block in blocks.values():
        weight = block.conv_dw.weight
        weight.grad = torch.randn(weight.shape, generator=draw)
        margin = (7 - weight.shape[-1]) // 2
        centre = slice(margin, 7 - margin)
        expected[: weight.shape[0], :, centre, centre] -= 0.1 * (1 + momentum) * weight.grad
    optimizer.step()
    torch.testing.assert_close(largest.detach(), expected)
