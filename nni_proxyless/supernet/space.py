"""MobileNetV2-style model spaces for NNI, built from the descriptions in `search_spaces/*.yml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nni.mutable import Categorical
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from ..errors import SpaceError
from ..image_size import ImageSize
from ..network.blocks import initialise
from ..network.space_spec import SpaceSpec
from .entangling import align_candidates, entangle


class MobileNetV2Space(ModelSpace):
    """The paper's space: one LayerChoice per layer over kernel sizes, expansion ratios and skip (section 4.1).

    Its modules have the same names as those of `network.plain_network.Network`, so weights can be copied by name.

    Args:
        spec: Description of the space: a `SpaceSpec`, or the output of `SpaceSpec.to_dict`.
        entangled: Whether the candidates of a layer train the same weights (see `entangling.entangle_candidates`).

    Shape: (batch, channels, height, width) to (batch, classes).

    Examples:
        >>> space = MobileNetV2Space.from_yaml("mobilenetv2_digits", classes=3)
        >>> f"{space.spec.num_networks:,}"
        '3,630,312'
        >>> network = space.freeze({layer.label: "k3_e3" for layer in space.spec.layers})
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
    """

    def __init__(self, spec: SpaceSpec | Mapping[str, Any], entangled: bool = True) -> None:
        super().__init__()
        self.spec = spec if isinstance(spec, SpaceSpec) else SpaceSpec.from_dict(spec)
        norm = self.spec.norm
        self.stem = self.spec.stem.build(norm)
        blocks: list[nn.Module] = [self.spec.first_block.build(norm)]
        for layer in self.spec.layers:
            candidates = {
                name: nn.Identity() if operator is None else operator.build(norm)
                for name, operator in layer.candidates.items()
            }
            blocks.append(LayerChoice(candidates, label=layer.label))
        self.blocks = nn.Sequential(*blocks)
        self.head = self.spec.head.build(norm)
        self.classifier = self.spec.classifier.build(norm)
        initialise(self)
        for choice in blocks[1:]:
            align_candidates(choice)  # type: ignore[arg-type]
        self.entangled = entangled
        entangle(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x)  # type: ignore[no-any-return]

    @classmethod
    def from_yaml(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        classes: int | None = None,
        width_mult: float | None = None,
        input_size: ImageSize | None = None,
        input_channels: int | None = None,
        entangled: bool = True,
    ) -> MobileNetV2Space:
        """Build a shipped space by its name, or any space by the path of its YAML file.

        Args:
            name_or_path: Name such as `mobilenetv2_imagenet`, or path such as `my_space.yml`.
            classes: Number of classes, if it differs from the file's.
            width_mult: Width multiplier, if it differs from the file's.
            input_size: Height and width of an image, if they differ from the file's: a number, or a tuple.
            input_channels: Channels of an image, if they differ from the file's.
            entangled: Whether the candidates of a layer train the same weights.

        Raises:
            SpaceError: There is no such space, or its file is malformed.
        """
        spec = SpaceSpec.from_yaml(name_or_path).with_changes(
            classes=classes, width_mult=width_mult, input_size=input_size, input_channels=input_channels
        )
        return cls(spec, entangled)


def describe_space(model_space: ModelSpace) -> SpaceSpec | None:
    """Return the description of a model space, or `None` if the space is not of this package's kind."""
    spec = getattr(model_space, "spec", None)
    return spec if isinstance(spec, SpaceSpec) else None


def description_of(model_space: ModelSpace) -> dict[str, Any] | None:
    """Return the description of a model space as the content of a file, or `None`; see `describe_space`."""
    spec = describe_space(model_space)
    return None if spec is None else spec.to_dict()


def require_description(model_space: ModelSpace, purpose: str) -> SpaceSpec:
    """Return the description of a model space.

    Args:
        model_space: Any NNI model space.
        purpose: Feature that needs the description, for the error message, such as "a latency table".

    Raises:
        SpaceError: The space is a class of the user's own, which does not describe its operators.
    """
    spec = describe_space(model_space)
    if spec is None:
        raise SpaceError(
            f"{purpose} needs a MobileNetV2Space, which knows the operators of each candidate; "
            f"{type(model_space).__name__} does not. Use penalty= with any NNI ExpressionProfiler instead"
        )
    return spec


def layer_choices(spec: SpaceSpec) -> dict[str, Categorical]:
    """Mapping from the label of each layer to its NNI mutable."""
    return {layer.label: Categorical(layer.names, label=layer.label) for layer in spec.layers}
