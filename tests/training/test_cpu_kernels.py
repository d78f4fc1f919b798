"""Faster modules compute the same as PyTorch's own modules in double precision, and save less for the backward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nni_proxyless.network.blocks import ConvBNReLU, MBConv, NormSettings
from nni_proxyless.training.cpu_kernels import BatchNormReLU6, DepthwiseConv2d, accelerate
from nni_proxyless.training.depthwise import depthwise_weight_gradient

NORM = NormSettings(momentum=0.3)


def lively(block: nn.Module) -> nn.Module:
    """Initialise batch-norms such that ReLU6 clips some values, but not all."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 3.0, 1.0)
            nn.init.normal_(module.bias, 1.0, 1.0)
    return block


def images(*shape: int) -> Tensor:
    return torch.randn(*shape).contiguous(memory_format=torch.channels_last)


def grads_of(module: nn.Module, x: Tensor, weight: Tensor) -> Iterator[Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    (y * weight).sum().backward()
    assert x.grad is not None
    yield y.detach()
    yield x.grad
    yield from (p.grad for p in module.parameters() if p.grad is not None)
    yield from module.buffers()


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("expansion", [1, 3])
def test_a_block_and_its_faster_twin_agree(kernel: int, stride: int, expansion: int) -> None:
    block = lively(MBConv(8, 8, kernel, expansion, stride, NORM))
    twin = accelerate(copy.deepcopy(block))
    assert isinstance(twin.conv_dw, DepthwiseConv2d) == (kernel > 3)
    assert isinstance(twin.bn2, BatchNormReLU6)
    assert not isinstance(twin.bn3, BatchNormReLU6)
    x, weight = images(4, 8, 9, 11), None
    exact = block.double()
    weight = torch.randn_like(exact(x.double()))
    exact.load_state_dict(twin.state_dict())
    pairs = list(zip(grads_of(exact, x.double(), weight), grads_of(twin, x, weight.float()), strict=True))
    assert len(pairs) == 2 + len(list(block.parameters())) + len(list(block.buffers()))
    for expected, found in pairs:
        # A sum of about 400 products, some of them above 10, has an error of up to 1e-3 in single precision.
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(5, 5), (7, 7), (3, 7), (7, 4), (1, 6), (2, 3)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("padding", [(0, 0), (3, 2)])
def test_the_depthwise_gradient_is_that_of_autograd(
    height: int, width: int, stride: tuple[int, int], padding: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nni_proxyless.training.depthwise.CHUNK_BYTES", 3 * 6 * 10 * 12 * 4)  # size of three images
    x, kernel = images(5, 6, 10, 12), torch.randn(6, 1, height, width)
    exact = kernel.double().requires_grad_()
    y = nn.functional.conv2d(x.double(), exact, None, stride, padding, groups=6)
    grad = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, exact, grad)
    found = depthwise_weight_gradient(
        grad.float().contiguous(memory_format=torch.channels_last), x, kernel, stride, padding
    )
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_parameters_and_names_stay() -> None:
    block = nn.Sequential(ConvBNReLU(3, 8, 3, 2, NORM), MBConv(8, 8, 7, 3, 1, NORM))
    state, parameters = block.state_dict(), list(block.parameters())
    before = {key: value.clone() for key, value in state.items()}
    accelerate(accelerate(block))
    assert list(block.state_dict()) == list(state)
    assert all(a is b for a, b in zip(parameters, block.parameters(), strict=True))
    block(images(2, 3, 8, 8))
    changed = {key for key, value in block.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if "running" in key or "num_batches" in key}


def test_frozen_weights_get_no_gradient_and_statistics_stay() -> None:
    block = accelerate(lively(MBConv(8, 8, 5, 3, 1, NORM)))
    before = copy.deepcopy(block.state_dict())
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    for parameter in block.parameters():
        parameter.requires_grad_(False)
    x = images(4, 8, 6, 6).requires_grad_()
    block(x).square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in block.parameters())
    assert all(torch.equal(value, before[key]) for key, value in block.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
def test_without_gradients_and_in_evaluation_the_same_comes_out(training: bool) -> None:
    block = lively(MBConv(8, 8, 7, 3, 1, NORM))
    block(images(4, 8, 6, 6))
    twin = accelerate(copy.deepcopy(block))
    x = images(4, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(twin.train(training)(x), block.train(training)(x))
    for a, b in zip(twin.buffers(), block.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("stride", [1, 2])
def test_frozen_paths_without_a_graph_compute_the_same_and_leave_their_input(
    memory_format: torch.memory_format, stride: int
) -> None:
    """The inactive paths of an architecture step overwrite the outputs of convolutions, but nothing else."""
    block = lively(MBConv(8, 8, 5, 3, stride, NORM))
    head = lively(ConvBNReLU(8, 16, 1, 1, NORM))
    twins = [accelerate(copy.deepcopy(module)) for module in (block, head)]
    for module in (m for top in (block, head, *twins) for m in top.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    x = torch.randn(4, 8, 9, 6).contiguous(memory_format=memory_format)
    kept = x.clone()
    with torch.no_grad():
        expected, found = head(block(x)), twins[1](twins[0](x))
    assert torch.equal(found, expected)
    assert torch.equal(x, kept)
    for twin, plain in zip(twins, (block, head), strict=True):
        for a, b in zip(twin.state_dict().values(), plain.state_dict().values(), strict=True):
            assert torch.equal(a, b)


def test_hooks_of_modules_inside_are_called_on_frozen_paths() -> None:
    block = accelerate(MBConv(8, 8, 3, 3, 1, NORM))
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
    seen = []
    x = images(2, 8, 5, 5)
    with torch.no_grad():
        expected = block(x)
        block.conv_dw.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
        assert torch.equal(block(x), expected)
    assert seen == [(2, 24, 5, 5)]


def test_cumulative_statistics() -> None:
    norm = nn.BatchNorm2d(4, momentum=None)
    twin = copy.deepcopy(norm)
    wrapped = ConvBNReLU(4, 4, 1, 1, NORM)
    wrapped.bn = twin
    twin = accelerate(wrapped).bn
    for _ in range(3):
        x = images(4, 4, 5, 5)
        norm(x)
        twin(x.requires_grad_())
    torch.testing.assert_close(twin.running_var, norm.running_var)
    assert int(twin.num_batches_tracked) == 3


def test_bfloat16_takes_the_ordinary_way() -> None:
    block = lively(MBConv(8, 8, 5, 3, 1, NORM))
    twin = accelerate(copy.deepcopy(block))
    x = images(4, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = block(x), twin(x)
    torch.testing.assert_close(found, expected)
    found.float().sum().backward()
    assert twin.conv_dw.weight.grad is not None


def test_a_third_fewer_activations_are_kept() -> None:
    def kept(block: nn.Module) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(x)
        return sum(storages.values())

    x = images(4, 8, 16, 16)
    block = MBConv(8, 8, 3, 6, 1, NORM)
    hidden, narrow, weights = 4 * 48 * 256 * 4, 4 * 8 * 256 * 4, 4 * sum(p.numel() for p in block.parameters())
    plain, twin = kept(block), kept(accelerate(copy.deepcopy(block)))
    # For each of two ReLU6, the block saves the input of batch-norm, a copy of its output, and the output of ReLU6. The
    # faster block saves no copy.
    assert plain == pytest.approx(6 * hidden + 2 * narrow, abs=2 * weights)
    assert twin == pytest.approx(4 * hidden + 2 * narrow, abs=2 * weights)


@pytest.mark.parametrize("kind", ["depthwise", "block"])
def test_a_loss_may_contain_a_gradient_of_them(kind: str) -> None:
    """A penalty of the gradient by the input differentiates the modules twice."""
    torch.manual_seed(0)
    plain = lively(
        nn.Conv2d(4, 4, (3, 5), padding=(1, 2), groups=4, bias=False)
        if kind == "depthwise"
        else MBConv(4, 6, 5, 3, 1, NORM)
    )
    fast = accelerate(nn.Sequential(copy.deepcopy(plain)))
    found = []
    for module in (plain, fast):
        module.train().requires_grad_(True)
        x = images(3, 4, 6, 6).copy_(torch.linspace(-2, 2, 432).view(3, 4, 6, 6).sin()).requires_grad_()
        (slope,) = torch.autograd.grad(module(x).pow(2).sum(), x, create_graph=True)
        slope.pow(2).sum().backward()
        found.append([x.grad, *(p.grad for p in module.parameters())])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_an_image_without_a_batch() -> None:
    conv = accelerate(nn.Sequential(nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False)))
    x = torch.randn(4, 6, 7)
    torch.testing.assert_close(conv(x), conv(x[None])[0])
