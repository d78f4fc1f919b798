"""What a stream can show: whether it is a terminal, and whether colours are welcome on it."""

from __future__ import annotations

import os
from typing import Any


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal that can move its cursor. With `TERM=dumb` it cannot."""
    try:
        return bool(stream.isatty()) and os.environ.get("TERM") not in ("dumb", "unknown")
    except (AttributeError, ValueError):  # a closed stream
        return False


def has_colours(stream: Any) -> bool:
    """Whether a stream is a terminal on which colours are welcome. `NO_COLOR` turns them off."""
    shows_codes = os.name != "nt" or bool(os.environ.get("WT_SESSION") or os.environ.get("TERM"))
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and shows_codes
