"""MobileNetV2-style model spaces for NNI, built from `search_spaces/*.yml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nni.mutable import Categorical
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from ..errors import SpaceError
from ..network.blocks import initialise
from ..network.space_spec import SpaceSpec
from .entangling import align_candidates, entangle


class MobileNetV2Space(ModelSpace):
    """The space of the paper: one LayerChoice per layer over kernels, expansions and skip (section 4.1).

    Its modules are named as in `operators.Network`, so weights pass between them by name.

    Args:
        spec: Description of the space, or what `SpaceSpec.to_dict` makes of it.
        entangled: Whether the candidates of a layer train the same weights (`operators.entangle_candidates`).

    Shape: (batch, channels, height, width) to (batch, classes).
    """

    def __init__(self, spec: SpaceSpec | Mapping[str, Any], entangled: bool = False) -> None:
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
        input_size: int | None = None,
        entangled: bool = False,
    ) -> MobileNetV2Space:
        """Build a shipped space by name, or any space by the path of its YAML.

        Args:
            name_or_path: For instance `mobilenetv2_imagenet`, or `my_space.yml`.
            classes: Instead of the file's number of classes.
            width_mult: Instead of the file's width multiplier.
            input_size: Instead of the file's image height and width.
            entangled: Whether the candidates of a layer train the same weights.

        Raises:
            SpaceError: There is no such space, or it is not well formed.
        """
        spec = SpaceSpec.from_yaml(name_or_path)
        return cls(spec.with_changes(classes=classes, width_mult=width_mult, input_size=input_size), entangled)


def describe_space(model_space: ModelSpace) -> SpaceSpec | None:
    """The description of a model space, if it is one of this package's kind."""
    spec = getattr(model_space, "spec", None)
    return spec if isinstance(spec, SpaceSpec) else None


def require_description(model_space: ModelSpace, purpose: str) -> SpaceSpec:
    """The description of a model space.

    Args:
        model_space: Any NNI model space.
        purpose: What it is needed for, as in "a latency table".

    Raises:
        SpaceError: The space is a class of the user's own, which says nothing of its operators.
    """
    spec = describe_space(model_space)
    if spec is None:
        raise SpaceError(
            f"{purpose} needs a MobileNetV2Space, which knows the operators of each candidate; "
            f"{type(model_space).__name__} does not. Use penalty= with any NNI ExpressionProfiler instead"
        )
    return spec


def layer_choices(spec: SpaceSpec) -> dict[str, Categorical]:
    """Label to the NNI mutable of each layer."""
    return {layer.label: Categorical(layer.names, label=layer.label) for layer in spec.layers}
