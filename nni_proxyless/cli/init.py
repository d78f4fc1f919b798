"""`nni-proxyless init`: looks at images, writes a recipe for them, and says what it chose and why."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from . import choices, completion
from .outputs import output_file
from .parser import positive
from .terminal import write_lines, write_table

if TYPE_CHECKING:
    from ..data.found_images import FoundImages
    from ..search.first_recipe import Choice

BACKENDS = ("onnxruntime", "torch", "openvino", "mnn", "ncnn")
_PACKAGES = {"onnxruntime": ("onnxruntime", "onnx"), "torch": ("torch",)}
_LINK = "images"


def add_command(command: Any) -> None:
    """Add the command to the parser.

    Args:
        command: Function of `make_parser` that adds a command.
    """
    init = command(
        "init",
        init_recipe,
        "Look at your images, and write the recipe of a first search within a latency budget on this machine.",
        "nni-proxyless init --data photos --budget-ms 5",
    )
    init.add_argument(
        "--data", type=Path, required=True,
        help="folder with a folder of images for each class, or with 'train' and 'val' of this kind; or an .npz file",
    )  # fmt: skip
    init.add_argument(
        "--budget-ms", type=positive("milliseconds"), required=True, help="latency budget in milliseconds"
    )
    backend = init.add_argument(
        "--backend", metavar=choices.braces(BACKENDS), choices=BACKENDS,
        help="runtime of the network on this machine (onnxruntime if it is installed, else torch)",
    )  # fmt: skip
    backend.completer = completion.one_of(BACKENDS)
    init.add_argument("--out", type=output_file, default=Path("recipe.yml"), help="file of the recipe (recipe.yml)")
    init.add_argument(
        "--experiment", action="store_true", help="also write an nnictl config next to it, for `run` and NNI's web UI"
    )


def init_recipe(options: argparse.Namespace) -> int:
    """Look at images, measure two networks, and write the recipe of a first search."""
    from importlib.util import find_spec

    from ..data.found_images import look_at

    out: Path = options.out
    config = out.with_name("config.yml") if options.experiment else None
    for path in filter(None, (out, config)):
        if os.path.lexists(path):
            raise InputError(f"{path} exists, and is not overwritten; give another file with --out")
    found = look_at(options.data)
    linked = None if found.nested else out.parent / _LINK
    if linked is not None:
        _check_link(found.source, linked)
    name = options.backend
    if name is None:
        name = next(key for key in _PACKAGES if all(map(find_spec, _PACKAGES[key])))

    from ..latency.backends.by_name import make_backend
    from ..search.first_recipe import choose_recipe
    from ..search.recipe import Recipe

    data_dir = _LINK if linked is not None else _path_from(out.parent, options.data)
    chosen = choose_recipe(found, options.budget_ms, make_backend(name, threads=1), data_dir)
    Recipe.from_dict(chosen.settings(), out.resolve().parent)
    if linked is not None:
        _link(found.source, linked)
    _write(out, found, chosen.choices)
    if config is not None:
        _write_config(config, out.name, str(chosen.settings()["target"]))
    rows = [["setting", "value", "reason"]]
    rows += [[c.key, str(c.value), c.reason] for c in chosen.choices if c.key not in ("seed", "targets")]
    write_table(rows)
    write_lines("", *(f"warning: {text}" for text in chosen.warnings), *([""] if chosen.warnings else []))
    write_lines(f"recipe: {out.resolve()}", *([f"config: {config.resolve()}"] if config else []))
    command = f"nni-proxyless run {config}" if config else f"nni-proxyless search {out}"
    write_lines(f"how long it takes: {command} --dry-run", f"next: {command}")
    return 0


def _path_from(folder: Path, data: Path) -> str:
    """Return the path of the data for the recipe: relative if they lie below the recipe's folder, else absolute."""
    data, folder = data.resolve(), folder.resolve()
    return str(data.relative_to(folder)) if data.is_relative_to(folder) else str(data)


def _check_link(source: Path, folder: Path) -> None:
    """Check that `images` is free, or what an earlier `init` for the same images has left.

    Raises:
        InputError: It is something else.
    """
    if not os.path.lexists(folder):
        return
    train = folder / "train"
    if train.is_symlink():
        if train.resolve() == source.resolve():
            return
        what = f"{train} links to other images, {train.resolve()}"
    elif folder.is_dir() and not any(folder.iterdir()):
        return  # the link could not be made
    else:
        what = f"{folder} exists, and is not a link to images that init has made"
    raise InputError(
        f"{what}; give --out in another folder, or move the folders of the classes into a folder 'train' inside "
        f"{source}"
    )


def _link(source: Path, folder: Path) -> None:
    """Make `images/train`, which the data set `imagefolder` expects, a link to the folder of the classes."""
    if (folder / "train").is_symlink():
        return  # by an earlier init
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train").symlink_to(source.resolve(), target_is_directory=True)
    except OSError as reason:
        raise InputError(
            f"cannot link {folder / 'train'} to {source}: {reason.strerror}; move the folders of the classes into a "
            f"folder 'train' inside {source}"
        ) from reason


def _write(path: Path, found: FoundImages, settings: Sequence[Choice]) -> None:
    import yaml

    from ..files.writing import write_text

    lines = [
        f"# The first search for {found.source.resolve().name!r}, written by nni-proxyless init. Change what you like:",
        "# docs/recipe.md describes all settings, and those that are not here have their defaults.",
    ]
    for choice in settings:
        value = choice.value
        written = yaml.safe_dump({choice.key: value}, sort_keys=False, allow_unicode=True, width=10_000)
        if isinstance(value, list):
            written = f"{choice.key}: {yaml.safe_dump(value, default_flow_style=True)}"
        first, *more = written.splitlines()
        lines += [f"{first.ljust(34)}  # {choice.reason}", *more]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _write_config(path: Path, recipe: str, target: str) -> None:
    from ..files.writing import write_yaml

    write_yaml(
        path,
        {
            "experimentName": f"nni-proxyless {path.resolve().parent.name}",
            "trialCommand": f"nni-proxyless trial --recipe {recipe}",
            "trialCodeDirectory": ".",
            "searchSpace": {"target": {"_type": "choice", "_value": [target]}},
            "tuner": {"className": "nni_proxyless.nni_bridge.tuner.LatencyBudget", "codeDirectory": "."},
            "trialConcurrency": 1,
            "maxTrialNumber": 1,
            "trainingService": {"platform": "local"},
        },
    )
