"""The description of a MobileNetV2-style search space: the validated content of a YAML file in `search_spaces/`.

`SpaceSpec` knows shapes, candidates and labels. It never imports NNI, so latency tables can be measured and
architectures can be built without NNI. `supernet/space.py` turns a `SpaceSpec` into an NNI model space.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import SpaceError, misfit, shown, unknown_name
from ..files.reading import read_mapping
from ..files.writing import check_name
from ..image_size import ImageSize, allowed_sizes, height_width, image_size, written
from ..values import MOST_WIDTH_MULT
from . import size_limits as limits
from .fields import Fields
from .layers import Layer as Layer
from .layers import Stage as Stage
from .layers import conv, mbconv, strided
from .norm_settings import NormSettings
from .operators import Operator
from .size_limits import check_size
from .space_files import shipped_spaces as shipped_spaces
from .space_files import space_file

SPACE_SCHEMA = "nni-proxyless/space@1"
SKIP = "skip"


@dataclass(frozen=True)
class SpaceSpec:
    """A search space as data (paper section 4.1 and figure 4).

    `width_mult` is applied when the operators are made. All width attributes are the values before that.

    Attributes:
        name: Name of the space.
        input_channels: Channels of an image.
        input_size: Height and width of an image: a number for a square, else the tuple (height, width).
        stem_width: Channels after the stem, a convolution with kernel 3.
        stem_stride: Stride of the stem.
        first_width: Channels after the first block, a separable convolution with kernel 3 that is not searched.
        stages: Searched stages.
        kernels: Candidate kernel sizes of the depthwise convolution.
        expansions: Candidate expansion ratios.
        skip: Whether layers with stride 1 and equal input and output widths may be skipped (variable depth).
        head_width: Channels before pooling.
        classes: Number of classes.
        width_mult: Factor on all widths. The results are rounded to multiples of 8. A factor below 1 leaves the head
            unchanged.
        norm: Batch-norm settings.
    """

    name: str
    input_channels: int
    input_size: ImageSize
    stem_width: int
    stem_stride: int
    first_width: int
    stages: tuple[Stage, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    skip: bool
    head_width: int
    classes: int
    width_mult: float = 1.0
    norm: NormSettings = field(default_factory=NormSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", image_size(self.input_size) or self.input_size)  # one form for a square

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return (self.input_channels, *height_width(self.input_size))

    @cached_property
    def _walk(self) -> tuple[Operator, Operator, tuple[Layer, ...], Operator, Operator]:
        stem = conv(self.input_shape, self._width(self.stem_width), 3, self.stem_stride)
        first = mbconv(stem.output_shape, self._width(self.first_width), 3, 1, 1)
        shape = first.output_shape
        layers = []
        for number, stage in enumerate(self.stages, start=1):
            for position in range(1, stage.depth + 1):
                stride = stage.stride if position == 1 else 1
                width = self._width(stage.width)
                candidates: dict[str, Operator | None] = {
                    f"k{kernel}_e{expansion}": mbconv(shape, width, kernel, expansion, stride)
                    for expansion in self.expansions
                    for kernel in self.kernels
                }
                if self.skip and stride == 1 and shape[0] == width:
                    candidates[SKIP] = None
                layers.append(Layer(f"stage{number}_layer{position}", candidates))
                shape = (width, strided(shape[1], stride), strided(shape[2], stride))
        head_width = self._width(self.head_width) if self.width_mult > 1 else self.head_width
        head = conv(shape, head_width, 1, 1)
        classifier = Operator("classifier", head.output_shape, (self.classes, 1, 1))
        return stem, first, tuple(layers), head, classifier

    @property
    def stem(self) -> Operator:
        return self._walk[0]

    @property
    def first_block(self) -> Operator:
        return self._walk[1]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self._walk[2]

    @property
    def head(self) -> Operator:
        return self._walk[3]

    @property
    def classifier(self) -> Operator:
        return self._walk[4]

    @property
    def fixed_operators(self) -> tuple[Operator, ...]:
        """Operators that are part of every network of the space."""
        return (self.stem, self.first_block, self.head, self.classifier)

    @property
    def num_networks(self) -> int:
        """Number of different networks in the space."""
        return math.prod(len(layer.candidates) for layer in self.layers)

    def distinct_operators(self) -> tuple[Operator, ...]:
        """All different operators that a network of this space can contain, in order of first appearance."""
        searched = (op for layer in self.layers for op in layer.candidates.values() if op is not None)
        return tuple(dict.fromkeys((*self.fixed_operators, *searched)))

    def choice_operators(self, choices: Mapping[str, str]) -> list[Operator | None]:
        """Return the operators of the searched layers of one architecture, with `None` for a skipped layer.

        Args:
            choices: Mapping from the label of each layer to the name of its candidate.

        Raises:
            SpaceError: A label is missing or unknown, or a candidate does not exist.
        """
        labels = [layer.label for layer in self.layers]
        missing = [label for label in labels if label not in choices]
        surplus = [label for label in choices if label not in labels]
        if missing or surplus:
            raise SpaceError(
                f"choices do not fit space '{self.name}': {misfit(missing, surplus)}; it has {len(labels)} layers, "
                f"{labels[0]} to {labels[-1]}"
            )
        chosen = []
        for layer in self.layers:
            name = choices[layer.label]
            if not isinstance(name, str) or name not in layer.candidates:
                raise SpaceError(f"layer {layer.label}: " + unknown_name("candidate", name, layer.candidates))
            chosen.append(layer.candidates[name])
        return chosen

    def operators(self, choices: Mapping[str, str]) -> list[Operator]:
        """All operators of one architecture, in execution order."""
        searched = [op for op in self.choice_operators(choices) if op is not None]
        return [self.stem, self.first_block, *searched, self.head, self.classifier]

    @cached_property
    def content_hash(self) -> str:
        """Hash of the description without its name. Spaces with the same content have the same hash everywhere."""
        content = {key: value for key, value in self.to_dict().items() if key != "name"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_changes(
        self,
        *,
        classes: int | None = None,
        width_mult: float | None = None,
        input_size: ImageSize | Sequence[int] | None = None,
        input_channels: int | None = None,
    ) -> SpaceSpec:
        """Return a copy with another number of classes, width multiplier or image shape, validated like a file.

        Args:
            classes: Number of classes.
            width_mult: Factor on all widths.
            input_size: Height and width of an image, one number or two.
            input_channels: Channels of an image.

        Raises:
            SpaceError: A value is out of range.
        """
        size = self.input_size if input_size is None else input_size
        changed = replace(
            self,
            classes=self.classes if classes is None else classes,
            width_mult=self.width_mult if width_mult is None else width_mult,
            input_size=size if isinstance(size, int) else (size[0], size[1]),
            input_channels=self.input_channels if input_channels is None else input_channels,
        )
        return SpaceSpec.from_dict(changed.to_dict())

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SPACE_SCHEMA,
            "name": self.name,
            "input": {"channels": self.input_channels, "size": written(self.input_size)},
            "stem": {"width": self.stem_width, "stride": self.stem_stride},
            "first_block": {"width": self.first_width},
            "stages": [{"width": s.width, "depth": s.depth, "stride": s.stride} for s in self.stages],
            "candidates": {
                "kernels": list(self.kernels),
                "expansions": list(self.expansions),
                "skip": self.skip,
            },
            "head": {"width": self.head_width},
            "classes": self.classes,
            "width_mult": self.width_mult,
            "batch_norm": {"eps": self.norm.eps, "momentum": self.norm.momentum},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "space") -> SpaceSpec:
        """Validate a description and create a spec from it.

        Args:
            content: Content of the YAML file.
            source: Name of the description in error messages, usually the path of its file.

        Raises:
            SpaceError: A field is missing, unknown, of a wrong type or out of range.
        """
        fields = Fields(content, source, SpaceError)
        if content.get("schema") != SPACE_SCHEMA:
            raise SpaceError(f"{source}: schema must be '{SPACE_SCHEMA}', got {shown(content.get('schema'))}")
        fields.only(
            "schema", "name", "input", "stem", "first_block", "stages", "candidates", "head", "classes",
            "width_mult", "batch_norm",
        )  # fmt: skip
        name = check_name(content.get("name"), f"{source}: 'name'", SpaceError)
        image = fields.part("input", "channels", "size")
        stem = fields.part("stem", "width", "stride")
        first = fields.part("first_block", "width")
        candidates = fields.part("candidates", "kernels", "expansions", "skip")
        head = fields.part("head", "width")
        norm = fields.part("batch_norm", "eps", "momentum", optional=True)
        stages = content.get("stages")
        if not isinstance(stages, list) or not stages or not all(isinstance(s, Mapping) for s in stages):
            raise SpaceError(f"{source}: 'stages' must be a list of mappings with width, depth and stride")
        parsed = []
        for number, stage in enumerate(stages, start=1):
            part = Fields(stage, f"{source}: stage {number}", SpaceError)
            part.only("width", "depth", "stride")
            width, depth = part.whole("width", most=limits.MOST_WIDTH), part.whole("depth", most=limits.MOST_LAYERS)
            parsed.append(Stage(width, depth, part.whole("stride", allowed=(1, 2))))
        layers = sum(stage.depth for stage in parsed)
        if layers > limits.MOST_LAYERS:
            raise SpaceError(f"{source}: the stages must have at most {limits.MOST_LAYERS} layers in all, got {layers}")
        skip = candidates.content.get("skip", True)
        if not isinstance(skip, bool):
            raise SpaceError(f"{source}: candidates.skip must be true or false, got {shown(skip)}")
        kernels = candidates.wholes("kernels", limits.MOST_KERNEL)
        if any(kernel % 2 == 0 for kernel in kernels):
            raise SpaceError(f"{source}: candidates.kernels must be odd, got {list(kernels)}")
        made = cls(
            name=name,
            input_channels=image.whole("channels", most=limits.MOST_CHANNELS),
            input_size=_size(image),
            stem_width=stem.whole("width", most=limits.MOST_WIDTH),
            stem_stride=stem.whole("stride", allowed=(1, 2)),
            first_width=first.whole("width", most=limits.MOST_WIDTH),
            stages=tuple(parsed),
            kernels=kernels,
            expansions=candidates.wholes("expansions", limits.MOST_EXPANSION),
            skip=skip,
            head_width=head.whole("width", most=limits.MOST_WIDTH),
            classes=fields.whole("classes", most=limits.MOST_CLASSES),
            width_mult=fields.positive("width_mult", 1.0, MOST_WIDTH_MULT),
            norm=NormSettings(norm.positive("eps", 1e-3, 1.0), norm.positive("momentum", 0.1, 1.0)),
        )
        searched = (operator for layer in made.layers for operator in layer.candidates.values() if operator is not None)
        check_size([*made.fixed_operators, *searched], source)
        return made

    @classmethod
    def from_yaml(cls, name_or_path: str | os.PathLike[str], folder: Path | None = None) -> SpaceSpec:
        """Load a shipped space by its name, or any space by the path of its file.

        Args:
            name_or_path: Name such as `mobilenetv2_imagenet`, or path such as `my_space.yml`.
            folder: Folder that a relative path is relative to. The default is the working folder.

        Raises:
            SpaceError: There is no such space (the message lists the shipped ones), or its file is malformed.
        """
        path = space_file(name_or_path, folder)
        return cls.from_dict(read_mapping(path, "space", SpaceError), f"space {path}")

    def _width(self, width: int) -> int:
        return make_divisible(width * self.width_mult)


def make_divisible(width: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, but not down by more than 10 % (MobileNetV2's rule)."""
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def _size(image: Fields) -> ImageSize:
    value = image.content.get("size")
    size = image_size(value)
    if size is None:
        raise SpaceError(f"{image.source}: 'size' must be {allowed_sizes(value)}, got {shown(value)}")
    return size


def _listed(labels: list[str]) -> str:
    return shown(labels) if labels else "nothing"
