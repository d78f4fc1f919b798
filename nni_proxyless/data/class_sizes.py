"""What the number of images means for a training: few images, and classes that differ in size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError, shown, unknown_name

UNEQUAL = 1.5  # ratio of the largest class to the smallest one, from which balanced accuracy is reported
FEW_IMAGES = 1_000  # training images, below which the number of steps is checked
FEW_STEPS = 500  # training steps, below which a network has learnt little
FEW_HELD_OUT = 100  # held-out images, below which an accuracy is uncertain by five points or more


def differ_in_size(labels: Sequence[int]) -> bool:
    """Whether the largest class has at least `UNEQUAL` times as many images as the smallest one that has any."""
    sizes = Counter(labels).values()
    return max(sizes) >= UNEQUAL * min(sizes)


def class_weights(setting: Any, labels: Sequence[int], names: Sequence[str]) -> list[float] | None:
    """Return the weight of each class in the loss.

    Args:
        setting: Key `class_weights` of a recipe: `balanced`, a list, a mapping from names to weights, or `None`.
            Classes that a mapping does not name have the weight 1.
        labels: Class of each training image.
        names: Names of the classes.

    Returns:
        A weight for each class; `None` if all weigh the same. `balanced` is n / (classes · n_c).

    Raises:
        DataError: There are more or fewer weights than classes, or a class has no such name.
    """
    if setting is None:
        return None
    if setting == "balanced":
        counts = Counter(labels)
        return [len(labels) / (len(names) * counts[c]) if counts[c] else 1.0 for c in range(len(names))]
    if isinstance(setting, Mapping):
        for name in setting:
            if name not in names:
                raise DataError("class_weights: " + unknown_name("class", name, names))
        return [float(setting.get(name, 1.0)) for name in names]
    if len(setting) != len(names):
        raise DataError(
            f"class_weights must have a number for each of the {len(names)} classes, got {len(setting)}: "
            f"{shown(setting)}"
        )
    return [float(one) for one in setting]


def few_images_warnings(
    labels: Sequence[int], held_out: int, batch_size: int, steps: int, epochs: int
) -> tuple[str, ...]:
    """Return what a user should know about a training with few images.

    Args:
        labels: Class of each training image.
        held_out: Number of held-out images.
        batch_size: Number of images in a batch, on all devices together.
        steps: Number of training steps in all.
        epochs: Number of epochs.
    """
    found = []
    images = len(labels)
    if images < FEW_IMAGES and steps < FEW_STEPS:
        needed = -(-epochs * FEW_STEPS // max(steps, 1))
        smaller = max(1, min(batch_size // 2, 16))
        less = f"batch_size={smaller} gives {images // smaller * epochs}, and " if smaller < batch_size else ""
        found.append(
            f"{images} training images make only {steps} training steps, which is too few to learn much; {less}"
            f"epochs={needed} gives {FEW_STEPS}; augmentation=strong may help"
        )
    if held_out < FEW_HELD_OUT:
        points = 100 * 0.5 / held_out**0.5
        found.append(
            f"accuracies on {held_out} held-out images have a standard error of up to {points:.1f} points; raise "
            "held_out_fraction or add images"
        )
    return tuple(found)
