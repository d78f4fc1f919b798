"""Folding of batch-norm into the preceding convolutions, the form in which devices run a network."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .blocks import ConvBNReLU, MBConv

_PAIRS = {ConvBNReLU: (("conv", "bn"),), MBConv: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3"))}


@torch.no_grad()
def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose batch-norms are folded into the preceding convolutions.

    Only the batch-norms of this package's blocks are folded. All others stay unchanged.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        for conv, norm in _PAIRS.get(type(module), ()):
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return folded
