"""Where this installation has its spaces and experiments. `--help` needs this, so the module imports nothing slow."""

from __future__ import annotations

from pathlib import Path


def shipped_folder(name: str) -> Path:
    """Return this installation's folder `search_spaces` or `experiments`."""
    package = Path(__file__).resolve().parent.parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
