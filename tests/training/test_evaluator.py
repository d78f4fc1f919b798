from __future__ import annotations

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn

from nni_proxyless.training.accuracy import accuracy, reestimate_batch_norm
from nni_proxyless.training.sgd import make_sgd


def test_batch_norm_statistics_are_the_mean_over_batches() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.3))
    batches = [(5 * torch.randn(6, 3, 4, 4) + i, torch.zeros(6)) for i in range(3)]
    weights = [p.clone() for p in network.parameters()]
    reestimate_batch_norm(network, batches)
    with torch.no_grad():
        outputs = [network[0](x) for x, _ in batches]
    torch.testing.assert_close(
        network[1].running_mean, torch.stack([y.mean((0, 2, 3)) for y in outputs]).mean(0), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        network[1].running_var, torch.stack([y.var((0, 2, 3)) for y in outputs]).mean(0), rtol=1e-4, atol=1e-4
    )
    assert network[1].momentum == 0.3
    assert not network.training
    assert all(torch.equal(a, b) for a, b in zip(weights, network.parameters(), strict=True))


def test_accuracy_by_hand() -> None:
    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    images = torch.eye(4).reshape(4, 4, 1, 1)
    batches = [(images, torch.tensor([0, 1, 2, 0])), (images[:1], torch.tensor([0]))]
    assert accuracy(Largest(), batches) == pytest.approx(4 / 5)


def test_momentum_of_weights_that_are_seldom_sampled_is_that_of_plain_sgd() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(7, 5, generator=generator)) for _ in range(4)]
    plain = [nn.Parameter(weight.detach().clone()) for weight in ours]
    fused = make_sgd(ours, 0.1, 0.9, 1e-2)
    reference = torch.optim.SGD(plain, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, fused=False)
    for step in range(20):
        fused.zero_grad()
        reference.zero_grad()
        for sampled in {step % 4, (3 * step + 1) % 4}:
            gradient = torch.randn(7, 5, generator=generator)
            ours[sampled].grad, plain[sampled].grad = gradient.clone(), gradient.clone()
        if step % 2:
            fused.step()
        else:  # like Lightning, which computes the gradients in a closure within the step

            def closure(made: tuple[Tensor | None, ...] = tuple(weight.grad for weight in ours)) -> None:
                for weight, gradient in zip(ours, made, strict=True):
                    weight.grad = gradient

            fused.zero_grad()
            fused.step(closure)
        reference.step()
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)


def test_gradients_are_clipped_in_mixed_precision_on_the_cpu() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    optimizer = make_sgd(weights, 0.1, 0.9)
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])  # norm 5
    MixedPrecision("bf16-mixed", "cpu").clip_gradients(optimizer, 1.0)
    torch.testing.assert_close(torch.cat([weights[0].grad, weights[1].grad]), torch.tensor([0.6, 0.0, 0.8]))
