"""What the operating system refuses: one line that says what was refused, and nothing that was there has changed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.errors import InputError, RunError, UnwritablePathError, WriteError, os_error_of
from nni_proxyless.files.writing import write_text
from tests.cli.test_cli import fails

PUBLISHED = {"Conv-input:8x8x3-output:4x4x8": {"mean": 1.5, "count": 10, "std": 0.1}}
# The first kind is remedied by another path or other permissions, the second by another disk or machine.
OF_THE_PATH = ("EACCES", "EBUSY", "EEXIST", "EISDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS")
OF_THE_MACHINE = ("EDQUOT", "EFBIG", "EIO", "EMFILE", "ENOMEM", "ENOSPC")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "published.yml"
    path.write_text(yaml.safe_dump(PUBLISHED))
    return path


def refusing(number: int) -> Callable[..., None]:
    def refuse(path: Any, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), os.fspath(path))

    return refuse


def state_of(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else os.lstat(path).st_mode
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", [*OF_THE_PATH, *OF_THE_MACHINE])
def test_every_error_of_writing_is_one_line(
    name: str, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    number = getattr(errno, name)
    (tmp_path / "out.yml").write_text("before")
    before = state_of(tmp_path)
    monkeypatch.setattr(os, "replace", refusing(number))
    words = ["latency", "import", str(published), "--format", "proxylessnas", "--out", str(tmp_path / "out.yml")]
    line = fails(words, capsys, code=1 if name in OF_THE_MACHINE else 2)
    assert f"cannot write {tmp_path / 'out.yml'}: {os.strerror(number)}" in line
    assert "untouched" in line
    assert state_of(tmp_path) == before
    kind = WriteError if name in OF_THE_MACHINE else UnwritablePathError
    with pytest.raises(kind):
        write_text(tmp_path / "out.yml", "x")


@pytest.mark.parametrize("name", [*OF_THE_PATH, *OF_THE_MACHINE])
def test_every_error_elsewhere_is_one_line_that_claims_neither_reading_nor_writing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    number = getattr(errno, name)
    monkeypatch.setattr(Path, "is_dir", refusing(number))
    line = fails(["show", str(tmp_path / "x.json")], capsys, code=1 if name in OF_THE_MACHINE else 2)
    assert line == f"nni-proxyless show: error: cannot use {tmp_path / 'x.json'}: {os.strerror(number)}"
    told = os_error_of(OSError(number, os.strerror(number)))
    assert isinstance(told, RunError if name in OF_THE_MACHINE else InputError)
    assert os_error_of(OSError("of no system call")) is None


def test_outputs_that_cannot_be_files(published: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe.yml")
    cases = {
        tmp_path / "folder.yml": "it is a folder",
        published / "out.yml": "Not a directory|File exists|is not a folder",
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "loop" / "out.yml": "Too many levels of symbolic links|File exists",
        tmp_path / "pipe.yml": "pipe",
        Path("/dev/null"): "device",
        Path("/dev/none.yml"): "devices",
    }
    before = state_of(tmp_path)
    for path, messages in cases.items():
        line = fails(["latency", "import", str(published), "--format", "proxylessnas", "--out", str(path)], capsys)
        assert any(message in line for message in messages.split("|")), line
        with pytest.raises(UnwritablePathError, match=r"^cannot write"):
            write_text(path, "x")
        assert state_of(tmp_path) == before
    assert Path("/dev/null").is_char_device()


INPUTS = (
    "latency import {} --format proxylessnas --out t.yml",
    "latency show {}",
    "latency validate {} --networks 2",
    "latency compare {} {}",
    "latency predict {} --architectures {}",
    "latency fit --measurements {} --out t.yml",
    "latency suggest --counts {} --out s.csv",
    "latency suggest --space {} --out s.csv",
    "show {}",
    "export {}",
    "retrain {}",
    "retrain proxyless_mobile --recipe {}",
    "decode {}",
    "search {}",
    "run {}",
    "report {}",
)


@pytest.mark.parametrize("words", INPUTS)
def test_inputs_that_are_no_files(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    os.mkfifo(tmp_path / "pipe.yml")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.yml").symlink_to(tmp_path / "loop.yml")
    (tmp_path / "binary.yml").write_bytes(bytes(range(256)))
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "empty.yml").touch()
    places = [*sorted(tmp_path.glob("*.*")), "/dev/zero", "/dev/null", "~nouser/x.yml", f"{tmp_path}/{'x' * 300}.yml"]
    for place in places:
        line = fails([word.replace("{}", str(place)) for word in words.split()], capsys)
        assert len(line) < 900, line
        assert list(work.iterdir()) == [], (place, line)
