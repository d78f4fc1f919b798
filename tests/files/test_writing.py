"""Temporary files of killed processes are removed, and nothing else ever is."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nni_proxyless.files import writing
from nni_proxyless.files.probe import why_not_writable
from nni_proxyless.files.writing import write_atomically, write_text
from tests.helpers import REPOSITORY

KILLED = """
import os, signal, sys
from pathlib import Path
from nni_proxyless.files.writing import write_atomically

def write(temporary):
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), write)
"""


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process looks for abandoned files once for each file that it writes."""
    monkeypatch.setattr(writing, "_searched", set())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "table.yml"
    path.write_text("before")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=REPOSITORY, check=False)
    assert done.returncode == -9
    (left,) = names(tmp_path) - {"table.yml"}
    assert left.startswith(".table.yml.")
    assert path.read_text() == "before"
    write_text(path, "after")
    assert names(tmp_path) == {"table.yml"}
    assert path.read_text() == "after"


def test_files_of_living_processes_and_of_users_stay(tmp_path: Path) -> None:
    path = tmp_path / "table.yml"
    used = tmp_path / ".table.yml.aaaaaaaa.part"
    handle = os.open(used, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as the process that writes it holds it
    kept = {used.name, ".table.yml.original", ".table.yml.part", ".other.yml.bbbbbbbb.part", ".table.yml.LOCKEDxx.part"}
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".table.yml.cccccccc.part").symlink_to(used)
    (tmp_path / ".table.yml.dddddddd.part").mkdir()
    before = names(tmp_path)
    (tmp_path / ".table.yml.eeeeeeee.part").touch()
    write_text(path, "new")
    assert names(tmp_path) == {*before, "table.yml"}
    os.close(handle)
    write_text(path, "newer")  # this process has looked already
    assert used.exists()


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOLCK])
def test_where_there_are_no_locks_nothing_is_removed(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / ".table.yml.aaaaaaaa.part").touch()
    monkeypatch.setattr("fcntl.flock", flock)
    write_text(tmp_path / "table.yml", "new")
    assert names(tmp_path) == {".table.yml.aaaaaaaa.part", "table.yml"}


def test_writers_at_the_same_time_do_not_remove_each_others_files(tmp_path: Path) -> None:
    path = tmp_path / "table.yml"

    def inner(temporary: Path) -> None:
        writing._searched.clear()  # as another process
        write_text(path, "second")
        temporary.write_text("first")

    write_atomically(path, inner)
    assert path.read_text() == "first"
    assert names(tmp_path) == {"table.yml"}


def test_no_handle_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        write_text(tmp_path / f"{number}.txt", "text")
    assert len(os.listdir("/proc/self/fd")) == before


def test_why_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_writable(tmp_path / "a" / "b") is None
    (tmp_path / "file").touch()
    assert why_not_writable(tmp_path / "file" / "b") == f"{tmp_path}/file is not a folder"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    for number, reason in ((errno.ENOSPC, None), (errno.EROFS, f"nothing can be written into {tmp_path}: Read-only")):

        def refuse(number: int = number, **_: object) -> None:
            raise OSError(number, "Read-only")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        assert why_not_writable(tmp_path) == reason
