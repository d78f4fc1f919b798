"""Where each setting of a recipe comes from, and the recipe as YAML that says so in comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from .layers import Layer as Layer
from .layers import merged as merged
from .settings import Settings

_COMMENT_COLUMN = 36
_BREAKS = "\x85\u2028\u2029\ufeff"  # which PyYAML writes unescaped, but reads as something else


def annotated(recipe: Settings, layers: Sequence[Layer], notes: Mapping[str, str], head: Sequence[str] = ()) -> str:
    """Write a recipe with all its settings as YAML, each with a comment that names its source.

    The text is a recipe again. Its paths are absolute, so it can be saved anywhere.

    Args:
        recipe: Recipe that `layers` make.
        layers: Sources of the recipe.
        notes: Explanations by key, such as what a default of `null` becomes.
        head: Lines of a comment at the beginning.
    """
    lines = [f"# {line}" for line in head]
    for key, value in recipe.to_dict(absolute=True).items():
        text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10_000)
        if any(mark in text for mark in _BREAKS):
            text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=False, width=10_000)
        comment = "; ".join(filter(None, (_origin(key, layers), notes.get(key))))
        written = text.splitlines()
        if len(written) == 1:
            lines.append(f"{written[0].ljust(_COMMENT_COLUMN)}  # {comment}")
        else:
            lines += [f"{written[0].ljust(_COMMENT_COLUMN)}  # {comment}", *written[1:]]
    return "".join(f"{line}\n" for line in lines)


def _origin(key: str, layers: Sequence[Layer]) -> str:
    having = [layer for layer in layers if key in layer.values]
    if not having:
        return "default"
    last = having[-1]
    others = [
        f"{layer.source} has {_short(layer.values[key])}"
        for layer in having[:-1]
        if layer.values[key] != last.values[key]
    ]
    return "; ".join([last.source, *others])


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).splitlines()[0]
    return text if len(text) <= 60 else f"{text[:60]}…"
