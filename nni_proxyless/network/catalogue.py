"""Networks that have a name: the four networks published with ProxylessNAS, and MobileNetV2 as the baseline.

The published networks come from mit-han-lab/proxylessnas (MIT licence). They were found for CPU, GPU and phone (paper,
figure 5). MobileNetV2 follows Sandler et al. 2018, table 2.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from ..errors import ArchitectureError, shown, unknown_name
from ..values import LEAST_WIDTH_MULT, MOST_WIDTH_MULT, is_number
from .space_spec import SpaceSpec, Stage

MOBILENET_V2 = "mobilenet_v2"
_MOBILENET_V2_STAGES = (
    Stage(24, 2, 2), Stage(32, 3, 2), Stage(64, 4, 2), Stage(96, 3, 1), Stage(160, 3, 2), Stage(320, 1, 1),
)  # fmt: skip
_PUBLISHED_STRIDES = (2, 2, 2, 1, 2, 1)


@dataclass(frozen=True)
class _Published:
    stem: int
    first: int
    widths: tuple[int, ...]
    head: int
    blocks: str


# One line for each stage. `53` is a candidate with kernel 5 and expansion ratio 3, `-` is a skipped layer.
_PHONE = """
    53 33 -  -
    73 33 53 53
    76 53 53 53
    56 53 53 53
    76 76 73 73
    76"""
_PUBLISHED = {
    "proxyless_cpu": _Published(40, 24, (32, 48, 88, 104, 216, 360), 1432, """
    36 33 33 33
    36 33 33 53
    36 -  -  33
    56 33 33 33
    56 53 53 33
    56"""),
    "proxyless_gpu": _Published(40, 24, (32, 56, 112, 128, 256, 432), 1728, """
    53 -  -  -
    73 -  -  33
    76 -  -  53
    56 -  33 53
    76 76 76 56
    76"""),
    "proxyless_mobile": _Published(32, 16, (32, 40, 80, 96, 192, 320), 1280, _PHONE),
    "proxyless_mobile_14": _Published(48, 24, (40, 56, 112, 136, 256, 448), 1792, _PHONE),
}  # fmt: skip
PUBLISHED = tuple(_PUBLISHED)


def published(name: str) -> tuple[SpaceSpec, dict[str, str]]:
    """Return the space and the choices of a published network, for images of 224 x 224 and 1,000 classes.

    Raises:
        ArchitectureError: There is no published network of that name.
    """
    if name not in _PUBLISHED:
        raise ArchitectureError(unknown_name("published network", name, _PUBLISHED))
    known = _PUBLISHED[name]
    rows = [line.split() for line in known.blocks.strip().splitlines()]
    spec = SpaceSpec(
        name=name,
        input_channels=3,
        input_size=224,
        stem_width=known.stem,
        stem_stride=2,
        first_width=known.first,
        stages=tuple(
            Stage(width, len(row), stride)
            for width, row, stride in zip(known.widths, rows, _PUBLISHED_STRIDES, strict=True)
        ),
        kernels=(3, 5, 7),
        expansions=(3, 6),
        skip=True,
        head_width=known.head,
        classes=1000,
    )
    names = [_candidate(cell) for row in rows for cell in row]
    return spec, dict(zip((layer.label for layer in spec.layers), names, strict=True))


def mobilenet_v2(width_mult: float = 1.0, like: SpaceSpec | None = None) -> tuple[SpaceSpec, dict[str, str]]:
    """Return the space and the choices of MobileNetV2: kernel 3 and expansion ratio 6 in all layers.

    Args:
        width_mult: Factor on all widths.
        like: Space that provides image size, classes, stem, stages and head, for data other than ImageNet. By default,
            these are MobileNetV2's own.

    Raises:
        ArchitectureError: `width_mult` is not a positive number.
    """
    if not is_number(width_mult, LEAST_WIDTH_MULT, MOST_WIDTH_MULT):
        raise ArchitectureError(
            f"width_mult must be a positive number, from {LEAST_WIDTH_MULT:g} to {MOST_WIDTH_MULT:g}, got "
            f"{shown(width_mult)}"
        )
    base = like or SpaceSpec(
        name=MOBILENET_V2,
        input_channels=3,
        input_size=224,
        stem_width=32,
        stem_stride=2,
        first_width=16,
        stages=_MOBILENET_V2_STAGES,
        kernels=(3,),
        expansions=(6,),
        skip=False,
        head_width=1280,
        classes=1000,
    )
    name = f"{MOBILENET_V2}_{width_mult:g}"
    spec = replace(base, name=name, kernels=(3,), expansions=(6,), skip=False).with_changes(width_mult=width_mult)
    return spec, {layer.label: "k3_e6" for layer in spec.layers}


def is_like_a_network(name: str) -> bool:
    """Whether a name is that of a network, or so much like one that it was probably meant."""
    names = (*_PUBLISHED, MOBILENET_V2)
    return any(difflib.get_close_matches(text, names, n=1) for text in (name, name.rpartition("_")[0]))


def by_name(name: str, like: SpaceSpec | None = None) -> tuple[SpaceSpec, dict[str, str]]:
    """Return the space and the choices of a named network.

    Args:
        name: Name of a published network, `mobilenet_v2`, or `mobilenet_v2` with a width multiplier after a further
            underscore, such as `mobilenet_v2_0.75`.
        like: Space that provides image size, channels and classes, and of MobileNetV2 also stem, stages and head; see
            `mobilenet_v2`.

    Raises:
        ArchitectureError: There is no network of that name.
    """
    stem, _, width = name.rpartition("_")
    if name == MOBILENET_V2:
        return mobilenet_v2(1.0, like)
    if stem == MOBILENET_V2:
        try:
            return mobilenet_v2(float(width), like)
        except ValueError as reason:  # of `float` or, as an ArchitectureError, of the range
            why = f": {reason}" if isinstance(reason, ArchitectureError) else ""
            raise ArchitectureError(
                f"{shown(name)}: {shown(width)} is not a width{why}; write it like {MOBILENET_V2}_0.75"
            ) from reason
    if name in _PUBLISHED:
        spec, choices = published(name)
        if like is not None:
            channels, height, width_ = like.input_shape
            spec = spec.with_changes(input_size=(height, width_), input_channels=channels, classes=like.classes)
        return spec, choices
    raise ArchitectureError(
        unknown_name("network", name, (*_PUBLISHED, MOBILENET_V2))
        + f", {MOBILENET_V2} with a width such as {MOBILENET_V2}_0.75, or the path of an architecture file"
    )


def _candidate(cell: str) -> str:
    return "skip" if cell == "-" else f"k{cell[0]}_e{cell[1]}"
