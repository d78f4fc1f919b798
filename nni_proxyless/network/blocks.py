"""The modules of MobileNetV2-style networks, with sublayers named by role, and their initial weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .norm_settings import NormSettings as NormSettings


class ConvBNReLU(nn.Module):
    """Convolution, batch-norm and ReLU6."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, norm: NormSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out, norm.eps, norm.momentum)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class MBConv(nn.Module):
    """Inverted residual block: pointwise expansion (absent at expansion 1), depthwise, pointwise-linear convolution."""

    def __init__(self, c_in: int, c_out: int, kernel: int, expansion: int, stride: int, norm: NormSettings) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        if expansion != 1:
            self.conv_pw = nn.Conv2d(c_in, hidden, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(hidden, norm.eps, norm.momentum)
        self.conv_dw = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden, norm.eps, norm.momentum)
        self.conv_pwl = nn.Conv2d(hidden, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out, norm.eps, norm.momentum)
        self.expands = expansion != 1
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = x  # (batch, c_in, h, w)
        if self.expands:
            y = self.act(self.bn1(self.conv_pw(y)))  # (batch, hidden, h, w)
        y = self.act(self.bn2(self.conv_dw(y)))  # (batch, hidden, h / stride, w / stride)
        out: Tensor = self.bn3(self.conv_pwl(y))  # (batch, c_out, h / stride, w / stride)
        return x + out if self.residual else out


class Classifier(nn.Module):
    """Global average pooling followed by a linear layer."""

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(c_in, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]


def initialise(network: nn.Module) -> None:
    """Initialise a network in place, as the paper's code does.

    Convolutions are drawn from He's normal distribution (fan out), linear layers from a narrow normal distribution.
    Residual blocks start as identities: their last batch-norm scales by 0 (Goyal et al. 2017, section 5.1).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
        elif isinstance(module, MBConv) and module.residual:
            nn.init.zeros_(module.bn3.weight)


def example_input(shape: tuple[int, int, int], batch: int = 1) -> Tensor:
    """Random images of shape (batch, channels, height, width), in channels_last, in which these networks are fast."""
    return torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
