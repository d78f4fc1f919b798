"""`nni-proxyless doctor`: checks the installation and prints one line for each finding, with its fix."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..adapters.versions import installed, release
from ..errors import MissingDependencyError, not_loaded
from ..files.probe import why_not_writable
from ..files.resources import cache_folder
from ..strategies import compatibility
from .ports import LOCALHOST_FIX, NO_LOCALHOST, localhost_is_known, port_is_free

Level = Literal["ok", "warning", "error"]
_LOADING_S = 60.0


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: `ok`; `warning` if something optional is missing; `error` if searches do not work.
        what: Name of the thing that was checked.
        found: Description of what the check found.
        fix: Command or setting that fixes the problem; empty if there is none.
    """

    level: Level
    what: str
    found: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<7}  {self.what}: {self.found}" + (f" -> {self.fix}" if self.fix else "")


def examine(port: int = 8080) -> list[Finding]:
    """Run all checks. A check that fails itself becomes a finding of level `error`.

    Args:
        port: Port intended for NNI's web UI.

    Returns:
        The findings, in the order in which problems are best fixed.
    """
    findings: list[Finding] = []
    for check in _CHECKS:
        try:
            findings += check()
        except Exception as reason:
            what = check.__name__.strip("_").replace("_", " ")
            findings.append(Finding("error", what, f"{type(reason).__name__}: {reason}"))
    return [*findings, *_port(port)]


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok", "python", f"{found} in {sys.prefix}")


def _packages() -> Iterator[Finding]:
    found = installed("nni")
    if found is None:
        yield Finding("error", "nni", "not installed", "pip install 'nni>=3.0,<3.1'")
    elif release(found)[:2] != (3, 0):
        yield Finding("error", "nni", found, "this plugin uses internals of 3.0: pip install 'nni>=3.0,<3.1'")
    else:
        yield Finding("ok", "nni", found)
    for package in ("torch", "torchvision"):
        known = installed(package)
        yield Finding("ok", package, known) if known else Finding("error", package, "missing", f"pip install {package}")
    try:
        compatibility.check_lightning()
        yield Finding("ok", "pytorch-lightning", str(installed("pytorch-lightning")))
    except MissingDependencyError as reason:
        yield Finding("error", "pytorch-lightning", str(reason))


def _pkg_resources() -> Iterator[Finding]:
    found = installed("setuptools")
    if find_spec("pkg_resources") is None:
        yield Finding(
            "error", "pkg_resources", f"missing (setuptools {found or 'not installed'}); nnictl imports it",
            "pip install 'setuptools<81'",
        )  # fmt: skip
    else:
        yield Finding("ok", "pkg_resources", f"setuptools {found}")


def _backends() -> Iterator[Finding]:
    packages = (
        ("onnxruntime", "backend onnxruntime", "onnx"),
        ("onnx", "backends onnxruntime and command", "onnx"),
        ("openvino", "backend openvino", "openvino"),
        ("MNN", "backend mnn", "mnn"),
        ("ncnn", "backend ncnn", "ncnn"),
        ("pnnx", "backend ncnn", "ncnn"),
    )
    problems = load_problems(tuple(package for package, *_ in packages if installed(package)))
    for package, what, extra in packages:
        found = installed(package)
        if found and package in problems:
            text, fix = not_loaded(problems[package], package)
            yield Finding("warning", what, f"{package} {found} {text}", fix)
        elif found:
            yield Finding("ok", what, f"{package} {found}")
        else:
            yield Finding("warning", what, f"{package} is not installed", f"pip install 'nni-proxyless[{extra}]'")
    import torch

    if torch.cuda.is_available():
        yield Finding("ok", "backend torch", f"cpu, cuda ({torch.cuda.get_device_name(0)})")
    else:
        yield Finding("ok", "backend torch", "cpu; PyTorch sees no CUDA device")


@cache
def load_problems(modules: tuple[str, ...]) -> dict[str, str]:
    """Say which modules cannot be loaded, and why. The imports are done in another process, which they may end."""
    problems = {}
    left = list(modules)
    while left:
        lines = [f"print('loading {name}', flush=True); import {name}" for name in left]
        try:
            done = subprocess.run(
                [sys.executable, "-c", "\n".join(lines)],
                capture_output=True, text=True, errors="replace", timeout=_LOADING_S, check=False,
            )  # fmt: skip
            code, printed, said = done.returncode, done.stdout, done.stderr.strip()
        except subprocess.TimeoutExpired as reason:
            code, printed, said = 1, _text(reason.stdout), f"the imports take more than {_LOADING_S:g} s"
        if code == 0:
            break
        begun = [name for name in left if f"loading {name}\n" in printed]
        last = begun[-1] if begun else left[0]
        problems[last] = said or f"the import ended with exit code {code}"
        left = left[left.index(last) + 1 :]
    return problems


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _enas() -> Iterator[Finding]:
    tianshou, gym = installed("tianshou"), installed("gym")
    fix = "pip install 'nni-proxyless[enas]'"
    if tianshou is None or gym is None:
        yield Finding("warning", "strategy enas", "tianshou or gym is not installed", fix)
    elif (release(tianshou)[:2], release(gym)[:2]) != ((0, 5), (0, 26)):
        found = f"tianshou {tianshou} with gym {gym}; NNI needs 0.5.0 with 0.26.2"
        yield Finding("error", "strategy enas", found, fix)
    else:
        yield Finding("ok", "strategy enas", f"tianshou {tianshou}, gym {gym}")


def _conflicts() -> Iterator[Finding]:
    protobuf, onnx = installed("protobuf"), installed("onnx")
    if onnx and protobuf and release(protobuf) < (3, 20):
        yield Finding(
            "error", "protobuf", f"{protobuf} is too old for onnx {onnx} (an older tianshou pins it)",
            "pip install --upgrade 'nni-proxyless[onnx,enas]'",
        )  # fmt: skip
    else:
        yield Finding("ok", "known conflicts", "none")


def _commands() -> Iterator[Finding]:
    here = Path(sys.executable).parent
    activate = f"activate the environment: source {here}/activate"
    for name in ("nnictl", "nni-proxyless"):
        path = shutil.which(name)
        if path is None:
            yield Finding("warning", name, "not on PATH; trials started by nnictl would not find it", activate)
        elif Path(path).parent != here:
            yield Finding("warning", name, f"{path} belongs to another environment than {sys.executable}", activate)
        else:
            yield Finding("ok", name, path)
    if shutil.which("kill") is None:
        lacking = "there is no program kill, and nnictl stop calls it"
        yield Finding("warning", "nnictl stop", lacking, "install procps, such as by: apt-get install procps")


def _registry() -> Iterator[Finding]:
    from .registration import CLASS, TUNER, registered_class

    found = registered_class()
    if found == CLASS:
        yield Finding("ok", f"tuner {TUNER}", "in NNI's registry")
    elif found is None:
        yield Finding(
            "warning", f"tuner {TUNER}", "not in NNI's registry; plain nnictl needs it there", "nni-proxyless register"
        )
    else:
        yield Finding("error", f"tuner {TUNER}", f"the registry has {found} under this name", "nni-proxyless register")


def _folders() -> Iterator[Finding]:
    from nni.runtime.config import get_config_directory

    for what, folder in (
        ("NNI's settings", get_config_directory()),
        ("experiments", Path.home() / "nni-experiments"),
        ("tables and warm-ups", cache_folder()),
    ):
        why = why_not_writable(folder)
        if why is None:
            yield Finding("ok", what, f"{folder} can be written")
        else:
            fix = {
                "NNI's settings": "set NNI_CONFIG_DIR to a writable folder",
                "experiments": "set experimentWorkingDirectory in the config",
                "tables and warm-ups": "set NNI_PROXYLESS_CACHE to a writable folder",
            }[what]
            yield Finding("error", what, f"{folder} cannot be written ({why})", fix)


def _port(port: int) -> Iterator[Finding]:
    if not localhost_is_known():
        yield Finding("error", "localhost", NO_LOCALHOST, LOCALHOST_FIX)
    if port_is_free(port):
        yield Finding("ok", f"port {port}", "free")
    else:
        yield Finding(
            "warning", f"port {port}", "is busy", "nnictl create --port N; nni-proxyless run takes the next free port"
        )


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _pkg_resources,
    _backends,
    _enas,
    _conflicts,
    _commands,
    _registry,
    _folders,
)
