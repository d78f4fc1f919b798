"""Networks with a published top-1 accuracy on ImageNet, the source of each accuracy, and how they are built.

The weights are random: the package ships no trained ones, and latency does not depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nni_proxyless import Architecture
from nni_proxyless.network.catalogue import PUBLISHED

INPUT_SHAPE = (3, 224, 224)
PROXYLESS, MOBILENET_V2, OTHERS = "ProxylessNAS", "MobileNetV2", "others"
HUB = "https://github.com/pytorch/hub/blob/master/pytorch_vision_proxylessnas.md"
SLIM = "https://github.com/tensorflow/models/blob/master/research/slim/nets/mobilenet/README.md"
TORCHVISION = "https://docs.pytorch.org/vision/stable/models.html"  # weights IMAGENET1K_V1
WEIGHTS = "IMAGENET1K_V1"


@dataclass(frozen=True)
class Network:
    """A network with a published accuracy.

    Attributes:
        name: Name of the network: one of the package's own, or a builder of torchvision.
        top1: Published top-1 accuracy on ImageNet, in percent, of the float32 network at 224 x 224.
        source: Page that states the accuracy.
        family: `ProxylessNAS`, `MobileNetV2` or `others`.
    """

    name: str
    top1: float
    source: str
    family: str

    def build(self) -> nn.Module:
        """Build the network with random weights and batch-norms, in evaluation mode.

        Residual blocks of new networks are identities, which would hide errors of an export.
        """
        network = self._architecture().build() if self.family != OTHERS else _torchvision(self.name)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        with torch.no_grad():
            network.train()(torch.randn(8, *INPUT_SHAPE))
        return network.eval()

    def _architecture(self) -> Architecture:
        if self.name in PUBLISHED:
            return Architecture.published(self.name)
        return Architecture.mobilenet_v2(float(self.name.rpartition("_")[2]))

    @property
    def multiply_adds_m(self) -> float:
        """Multiply-adds for one image, in millions."""
        if self.family != OTHERS:
            return self._architecture().multiply_adds / 1e6
        return 1000.0 * float(torchvision_meta(self.name)["_ops"])


def _torchvision(name: str) -> nn.Module:
    from torchvision.models import get_model

    built: nn.Module = get_model(name, weights=None)
    return built


def torchvision_meta(name: str) -> dict[str, object]:
    """What torchvision states about its first weights of a network."""
    from torchvision.models import get_model_weights

    meta: dict[str, object] = get_model_weights(name)[WEIGHTS].meta
    return meta


BASELINE = Network("mobilenet_v2_1.4", 75.0, SLIM, MOBILENET_V2)  # of the paper's headline
NETWORKS = (
    Network("proxyless_mobile", 74.6, HUB, PROXYLESS),
    Network("proxyless_gpu", 75.1, HUB, PROXYLESS),
    Network("proxyless_cpu", 75.3, HUB, PROXYLESS),
    Network("proxyless_mobile_14", 76.7, HUB, PROXYLESS),
    Network("mobilenet_v2_0.75", 69.8, SLIM, MOBILENET_V2),
    Network("mobilenet_v2_1", 71.8, SLIM, MOBILENET_V2),
    BASELINE,
    Network("resnet18", 69.758, TORCHVISION, OTHERS),
    Network("shufflenet_v2_x1_5", 72.996, TORCHVISION, OTHERS),
    Network("mnasnet1_0", 73.456, TORCHVISION, OTHERS),
    Network("mobilenet_v3_large", 74.042, TORCHVISION, OTHERS),
    Network("regnet_y_400mf", 74.046, TORCHVISION, OTHERS),
    Network("efficientnet_b0", 77.692, TORCHVISION, OTHERS),
)
