"""Changes of other packages at their import. NNI 3.0 was released in 2023, and the packages that it uses have changed.

`install` adds a finder to Python's import system, which changes how a few modules of other packages are imported, and
nothing else. No file of another package is changed. A module that is never imported costs nothing, so commands start as
fast as before.

| module | what would happen without the change |
|---|---|
| `nni.nas.oneshot.pytorch._dataloader` | NNI's ENAS fails on pytorch-lightning 2.1 or newer. |
| `typeguard._transformer` | It imports `ast.Str`, which Python 3.12 deprecates and 3.14 lacks. |
| `tianshou` | gym, which it imports, prints that it is unmaintained. |
| `torch.utils.flop_counter` | It logs that Triton is missing, as on Windows, which matters to Triton's kernels only. |
| `pkg_resources`, `nni.nas.nn.pytorch.layers` | They warn about themselves. |
"""

from __future__ import annotations

import ast
import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, cast

from .versions import installed, release

NNIS_LOADER = "nni.nas.oneshot.pytorch._dataloader"
_FIRST_CHANGED = (2, 1)  # version of pytorch-lightning whose private loaders are not those that NNI knows


@contextlib.contextmanager
def _with_ast_str() -> Iterator[None]:
    """Context manager in which `ast.Str` exists. typeguard needs the name for Python 3.7 and older only."""
    had = "Str" in vars(ast)
    if not had:
        ast.Str = ast.Constant  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        if not had:
            del ast.Str


@contextlib.contextmanager
def _without_notice_of_gym() -> Iterator[None]:
    """Context manager in which gym prints nothing when it is imported."""
    try:
        notices: dict[str, str] = import_module("gym_notices.notices").notices
    except ImportError:  # without gym there is no notice, and tianshou says what is missing
        notices = {}
    before = dict(notices)
    notices.clear()
    try:
        yield
    finally:
        notices.update(before)


def _without_warning(message: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=message)
            yield

    return around


@contextlib.contextmanager
def _without_log_of_flop_counter() -> Iterator[None]:
    """Context manager in which PyTorch's counter of operations logs nothing."""
    log = logging.getLogger("torch.utils.flop_counter")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


_AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "typeguard._transformer": _with_ast_str,
    "tianshou": _without_notice_of_gym,
    "torch.utils.flop_counter": _without_log_of_flop_counter,
    "pkg_resources": _without_warning(".*pkg_resources.*"),
    "nni.nas.nn.pytorch.layers": _without_warning(".*is found to be not a nn.Module.*"),
}
"""What is done around the execution of a module."""


class _Around(Loader):
    """Loader that executes a module as its own loader does, within a context manager."""

    def __init__(self, loader: Any, around: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._loader = loader
        self._around = around

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return cast("ModuleType | None", self._loader.create_module(spec))

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # nothing else of the module is to look changed
        with self._around():
            self._loader.exec_module(module)


class _Instead(Loader):
    """Loader that fills a module with the names of a module of this package."""

    def __init__(self, name: str) -> None:
        self._name = name

    def exec_module(self, module: ModuleType) -> None:
        ours = import_module(f".{self._name}", __package__)
        vars(module).update({name: getattr(ours, name) for name in ours.__all__})


class AdaptedImports(MetaPathFinder):
    """Import finder for the modules of other packages that need a change."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module that needs a change; `None` for all others."""
        if fullname == NNIS_LOADER and release(installed("pytorch-lightning") or "0") >= _FIRST_CHANGED:
            return ModuleSpec(fullname, _Instead("concat_loader"), origin=__name__)
        if fullname not in _AROUND:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Around(spec.loader, _AROUND[fullname])
        return spec


def install() -> None:
    """Add the finder to Python's import system, once."""
    if not any(isinstance(finder, AdaptedImports) for finder in sys.meta_path):
        sys.meta_path.insert(0, AdaptedImports())
