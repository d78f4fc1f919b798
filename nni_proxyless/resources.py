"""Where the shipped spaces and experiments lie: inside the wheel, or at the top of a checkout."""

from __future__ import annotations

import os
from pathlib import Path


def shipped_folder(name: str) -> Path:
    """The folder `search_spaces` or `experiments`, wherever this installation keeps it."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def cache_folder() -> Path:
    """Where measured tables are kept between trials: `$NNI_PROXYLESS_CACHE`, else `~/.cache/nni-proxyless`."""
    chosen = os.environ.get("NNI_PROXYLESS_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nni-proxyless"
    return base.expanduser()
