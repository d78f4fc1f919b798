"""Height and width of images, in this order: one number for a square, or two.

Space files, recipes and architecture files write `96` for images of 96 x 96 pixels and `[96, 160]` for a height of 96
and a width of 160. In the program, the second form is a tuple.
"""

from __future__ import annotations

from .values import MOST_PIXELS, is_whole

ImageSize = int | tuple[int, int]
ALLOWED = "a whole number from 1 or [height, width]"


def image_size(value: object) -> ImageSize | None:
    """Return the size that a user or a file has written; `None` if it is not a size, or larger than `MOST_PIXELS`.

    Two equal numbers are the same as one.
    """
    if is_whole(value, 1, MOST_PIXELS):
        return value
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(is_whole(one, 1, MOST_PIXELS) for one in value):
        return value[0] if value[0] == value[1] else (value[0], value[1])
    return None


def allowed_sizes(received: object) -> str:
    """Return a noun phrase for the allowed sizes. The largest one is named only to those who exceed it."""
    exceeding = f"from 1 to {MOST_PIXELS}"
    if isinstance(received, (list, tuple)):
        exceeds = any(isinstance(one, (int, float)) and one > MOST_PIXELS for one in received)
        return f"[height, width], whole numbers {exceeding}" if exceeds else ALLOWED
    return f"a whole number {exceeding}" if isinstance(received, (int, float)) and received > MOST_PIXELS else ALLOWED


def height_width(size: ImageSize) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def written(size: ImageSize) -> int | list[int]:
    """Return the size as files write it."""
    return size if isinstance(size, int) else list(size)
