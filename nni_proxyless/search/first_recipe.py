"""Chooses the recipe of a first search for a folder of images and a budget: space, sizes, batches and epochs.

The budget determines how large the networks may be. The smallest and the largest network of a space are therefore
measured here, and the first space in which the budget leaves a choice is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.class_sizes import UNEQUAL
from ..data.found_images import FoundImages
from ..errors import InputError
from ..image_size import ImageSize, written
from ..latency.measure import measure_networks
from ..latency.random_architectures import calibration_architectures
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec

ARCH_FRACTION = HELD_OUT_FRACTION = 0.2
LEAST_STEPS = 3000  # of the weights in a search; fewer do not train a supernet
EPOCHS = (30, 200)  # fewest and most epochs
BATCH = (4, 64)
FEW_IMAGES = 1000
_RATE, _RATE_BATCH = 0.05, 64
_SMALL_SIDE = 64  # pixels up to which images are searched in the space for small images
_WIDTHS = (1.0, 0.75, 0.5, 0.35)
# The budget lies in the upper part of a space's range, so that the search need not leave out most layers.
_LEAST_POSITION = 0.25

Measure = Callable[[Sequence[Architecture]], Sequence[float]]


@dataclass(frozen=True)
class Choice:
    """A setting of the recipe.

    Attributes:
        key: Key in the recipe.
        value: Its value.
        reason: Why it has this value.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class FirstRecipe:
    """The recipe of a first search.

    Attributes:
        choices: Settings, in the order in which they are written.
        warnings: Problems that may spoil the search.
    """

    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

    def settings(self) -> dict[str, Any]:
        """Return the settings by key."""
        return {choice.key: choice.value for choice in self.choices}


@dataclass(frozen=True)
class Networks:
    """A space whose smallest and largest network have been measured.

    Attributes:
        spec: Description of the space.
        space: Name of the shipped space.
        smallest_ms: Latency of its smallest network in milliseconds.
        largest_ms: Latency of its largest network in milliseconds.
    """

    spec: SpaceSpec
    space: str
    smallest_ms: float
    largest_ms: float

    def leaves_a_choice(self, budget_ms: float) -> bool:
        """Whether networks of some size are within a budget."""
        return budget_ms >= self.smallest_ms + _LEAST_POSITION * (self.largest_ms - self.smallest_ms)


def choose_recipe(found: FoundImages, budget_ms: float, backend: Any, data_dir: str) -> FirstRecipe:
    """Choose the settings of a first search.

    Args:
        found: What is in the data.
        budget_ms: Latency budget in milliseconds.
        backend: Backend that measures on this machine.
        data_dir: Folder or file of the data, as the recipe names it.

    Raises:
        InputError: No network of the spaces is within the budget.
    """

    def measure(networks: Sequence[Architecture]) -> list[float]:
        return [one.median for one in measure_networks(networks, backend, protocol=backend.calibration_protocol)]

    networks = choose_networks(candidate_spaces(found), budget_ms, measure)
    spec = networks.spec
    architecture_images = round(ARCH_FRACTION * found.images)
    weight_images = found.images - architecture_images - round(HELD_OUT_FRACTION * found.images)
    batch = batch_size(architecture_images)
    steps = max(weight_images // batch, 1)
    epochs = min(max(math.ceil(LEAST_STEPS / steps), EPOCHS[0]), EPOCHS[1])
    target = f"cpu_{backend.name}"
    ends = f"its smallest network took {networks.smallest_ms:.3g} ms here, its largest {networks.largest_ms:.3g} ms"
    pixels = f"images of {spec.input_shape[1]} x {spec.input_shape[2]} pixels"
    shown = f"the images have {found.side} pixels at the shorter side" if found.kind == "imagefolder" else pixels
    choices = (
        Choice("data", found.kind, f"{found.images} training images of {len(found.training)} classes"),
        Choice("data_dir", data_dir, f"{found.test or 'no'} test images"),
        Choice("space", networks.space, ends),
        Choice("input_size", written(spec.input_size), shown),
        Choice("input_channels", spec.input_channels, _channels(found)),
        Choice("width_mult", spec.width_mult, "the largest width at which the budget leaves a choice of layers"),
        Choice("budget_ms", budget_ms, "the largest latency that you allow"),
        Choice("arch_fraction", ARCH_FRACTION, f"{architecture_images} images train the architecture"),
        Choice("held_out_fraction", HELD_OUT_FRACTION, "the same number is held out for validation"),
        Choice("batch_size", batch, _batches(architecture_images // batch)),
        Choice("learning_rate", _RATE * batch / _RATE_BATCH, f"{_RATE} for batches of {_RATE_BATCH}, in proportion"),
        Choice("epochs", epochs, f"{epochs * steps} steps of {weight_images} images in batches of {batch}"),
        Choice("seed", 0, "another seed gives another split"),
        Choice("target", target, f"measured on this machine with {backend.name}"),
        Choice("targets", {target: {"backend": backend.name, "threads": 1}}, "add your device (docs/your_own.md)"),
    )
    return FirstRecipe(choices, tuple(_warnings(found, networks, budget_ms, epochs * steps)))


def _batches(number: int) -> str:
    return f"{number} batch{'es' if number != 1 else ''} of the images that train the architecture"


def _channels(found: FoundImages) -> str:
    if found.kind == "imagefolder":
        looked = f"the {len(found.sizes)} images that were looked at"
        return f"{looked} are all grey" if found.channels == 1 else f"{looked} are not all grey"
    return "those of the arrays"


def candidate_spaces(found: FoundImages) -> Iterator[tuple[str, SpaceSpec]]:
    """Return the shipped spaces for some images, the largest networks first, each with its name."""
    small = found.side <= _SMALL_SIDE
    name = "mobilenetv2_cifar" if small else "mobilenetv2_imagenet"
    if small and found.channels == 1:
        name = "mobilenetv2_digits"
    sizes: tuple[ImageSize, ...]
    if found.kind == "arrays":
        sizes = (found.sizes[0],)  # arrays are neither resized nor cropped
    elif small:
        sizes = tuple(s for s in (64, 48, 32) if s <= max(found.side, 32))
    else:
        sizes = tuple(s for s in (224, 192, 160, 128, 96) if s <= max(found.side, 96))
    base = SpaceSpec.from_yaml(name).with_changes(classes=len(found.training), input_channels=found.channels)
    for size in sizes:
        for width_mult in _WIDTHS:
            yield name, base.with_changes(input_size=size, width_mult=width_mult)


def choose_networks(spaces: Iterator[tuple[str, SpaceSpec]], budget_ms: float, measure: Measure) -> Networks:
    """Choose the first space in which a budget leaves a choice of networks.

    The latencies of a space that is not measured are estimated from those of the last measured one, in proportion to
    the multiply-adds. Only a measured space is chosen.

    Args:
        spaces: Spaces with their names, the largest networks first.
        budget_ms: Latency budget in milliseconds.
        measure: Function that returns the latencies of networks of one space in milliseconds.

    Raises:
        InputError: No network is within the budget.
    """
    listed = list(spaces)
    measured: dict[int, Networks] = {}

    def measure_at(number: int) -> Networks:
        if number not in measured:
            name, spec = listed[number]
            smallest, largest = measure(calibration_architectures(spec, 2, 0))
            measured[number] = Networks(spec, name, smallest, largest)
        return measured[number]

    number = 0
    while not measure_at(number).leaves_a_choice(budget_ms) and number < len(listed) - 1:
        number = _next_likely(listed, number, measured[number], budget_ms)
    # The estimate may have skipped a space that leaves more of a choice.
    while (
        number > 0 and measure_at(number).largest_ms <= budget_ms and measure_at(number - 1).leaves_a_choice(budget_ms)
    ):
        number -= 1
    found = measured[number]
    if budget_ms < found.smallest_ms:
        raise InputError(
            f"no network is within {budget_ms:g} ms: the smallest one of {found.space} with input_size "
            f"{written(found.spec.input_size)} and width_mult {found.spec.width_mult:g} takes {found.smallest_ms:.3g} "
            "ms on this machine; give a larger --budget-ms"
        )
    return found


def _next_likely(listed: Sequence[tuple[str, SpaceSpec]], number: int, known: Networks, budget_ms: float) -> int:
    """Return the number of the next space in which the budget seems to leave a choice; the last one if none does."""
    before = calibration_architectures(known.spec, 2, 0)
    for following in range(number + 1, len(listed) - 1):
        name, spec = listed[following]
        ends = calibration_architectures(spec, 2, 0)
        scale = [one.multiply_adds / other.multiply_adds for one, other in zip(ends, before, strict=True)]
        guess = Networks(spec, name, known.smallest_ms * scale[0], known.largest_ms * scale[1])
        if guess.leaves_a_choice(budget_ms):
            return following
    return len(listed) - 1


def batch_size(architecture_images: int) -> int:
    """Return the largest power of 2 within `BATCH` that leaves at least 4 batches of the architecture's images."""
    least, most = BATCH
    return max(least, min(most, 1 << (max(architecture_images // 4, 1).bit_length() - 1)))


def _warnings(found: FoundImages, networks: Networks, budget_ms: float, steps: int) -> Iterator[str]:
    if found.images < FEW_IMAGES:
        yield (
            f"{found.images} images are few: expect accuracies to differ by several percent between seeds, and "
            "retrain the network that is found"
        )
    if steps < LEAST_STEPS:
        yield f"the search has {steps} steps, and fewer than {LEAST_STEPS} steps hardly train it; add images or epochs"
    if found.imbalance >= UNEQUAL:
        largest, smallest = (pick(found.training, key=found.training.__getitem__) for pick in (max, min))
        yield (
            f"class {largest} has {found.imbalance:.1f} times as many images as {smallest}: the accuracy counts "
            "images, not classes; set class_weights: balanced in the recipe if all classes are equally important, and "
            "look at the balanced accuracy"
        )
    if not found.test:
        add = "add a folder 'val'" if found.nested else "move the classes into a folder 'train', and add a folder 'val'"
        if found.kind == "arrays":
            add = "add arrays of test images (docs/your_own.md)"
        yield f"there are no test images, so the accuracy on new images is not measured; {add}"
    if budget_ms >= networks.largest_ms:
        yield (
            f"the budget of {budget_ms:g} ms has no effect: the largest network took {networks.largest_ms:.3g} ms; "
            "lower the budget, or use a larger space"
        )
