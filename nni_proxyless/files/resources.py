"""Locations of files: shipped spaces and experiments (in the wheel, or at the top of a checkout), and the cache."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError, clipped, unknown_name
from .nearby import no_such_path
from .reading import user_path
from .shipped import shipped_folder as shipped_folder


def cache_folder() -> Path:
    """Return the folder in which latency tables and warm-ups are kept between trials.

    It is `$NNI_PROXYLESS_CACHE` if that is set, otherwise `nni-proxyless` in `$XDG_CACHE_HOME` or in `~/.cache`.
    """
    chosen = os.environ.get("NNI_PROXYLESS_CACHE")
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nni-proxyless"
    return user_path(base, "cache folder", InputError)


def experiment_file(name_or_path: str, file: str) -> Path:
    """Return the path of a config or recipe, given as a path or as the name of a shipped experiment.

    Args:
        name_or_path: Path of a file, or name of a shipped experiment such as `quickstart`.
        file: Name of the experiment's file: `config.yml` or `recipe.yml`.

    Raises:
        InputError: There is neither such a file nor such an experiment.
    """
    path = user_path(name_or_path, file, InputError)
    if path.is_file():
        return path
    shipped = {found.parent.name: found for found in shipped_folder("experiments").glob(f"*/{file}")}
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.suffix in {".yml", ".yaml"} or os.sep in name_or_path:
        listed = ", ".join(sorted(shipped))
        give = f"give the path of a {file} or one of {listed}"
        raise InputError(f"{clipped(str(path))} is a folder; {give}" if path.is_dir() else no_such_path(path, give))
    raise InputError(unknown_name("experiment", name_or_path, shipped) + f", or the path of a {file}")
