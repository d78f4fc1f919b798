"""One process at a time uses a folder of results, and files are written as a whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.errors import InputError, RunError, UnwritablePathError, WriteError
from nni_proxyless.files import claims
from nni_proxyless.files import writing as files
from nni_proxyless.files.claims import LOCK, Owner, claimed, claimed_file
from nni_proxyless.files.writing import sweep, write_atomically, write_text
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY

HOLD = """
import sys, time
from pathlib import Path
from nni_proxyless.files.claims import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def owner(folder: Path, **changes: Any) -> Path:
    """Write the lock of a process; by default, of one that has ended on this machine."""
    content = {"host": Owner.this().host, "boot": Owner.this().boot, "process": 2**22 + 1, "started": 1.0, **changes}
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps(content))
    return folder / LOCK


def test_a_folder_in_use_is_refused_and_that_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        before = (folder / LOCK).read_bytes()
        assert json.loads(before)["process"] == process.pid
        with pytest.raises(InputError, match=rf"in use by process {process.pid} on this machine \(.*\); wait until"):
            claimed(folder).__enter__()
        assert (folder / LOCK).read_bytes() == before
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (folder / LOCK).exists()  # the killed process could not remove it
    (folder / ".weights.pt.abcd_012").write_text("left by the killed process")
    (folder / ".mine.pt.abcd_012").write_text("another file of the user's")
    with claimed(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert sorted(path.name for path in folder.iterdir()) == [".mine.pt.abcd_012"]


def test_a_process_that_got_the_number_of_a_dead_owner_is_no_owner(tmp_path: Path) -> None:
    started = psutil.Process(os.getppid()).create_time()
    owner(tmp_path / "out", process=os.getppid(), started=started - 100)
    with claimed(tmp_path / "out"):
        pass
    # Where the file system has no locks, the number and the start of a running process protect.
    owner(tmp_path / "out", process=os.getppid(), started=started)
    with pytest.raises(InputError, match=f"in use by process {os.getppid()} on this machine"):
        claimed(tmp_path / "out").__enter__()


def test_the_lock_of_a_process_before_a_restart_is_taken_over(tmp_path: Path) -> None:
    owner(tmp_path / "out", process=os.getppid(), boot="another", started=psutil.Process(os.getppid()).create_time())
    with claimed(tmp_path / "out"):
        pass


def test_the_lock_of_another_machine_is_named_with_what_to_do(tmp_path: Path) -> None:
    lock = owner(tmp_path / "out", host="node7", boot="another", process=12)
    before = lock.read_bytes()
    with pytest.raises(InputError) as refused:
        claimed(tmp_path / "out").__enter__()
    assert str(refused.value) == (
        f"the folder {tmp_path / 'out'} is in use by process 12 on the machine node7, which cannot be seen from here; "
        f"if that process has ended, delete {lock}"
    )
    assert lock.read_bytes() == before
    lock.unlink()
    with claimed(tmp_path / "out"):
        pass


def test_the_lock_of_a_vanished_machine_is_taken_over_once_it_is_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = owner(tmp_path / "out", host="node7", boot="another", process=12)
    os.utime(lock, (time.time() - 500,) * 2)
    with pytest.raises(InputError, match="process 12 on the machine node7"):
        claimed(tmp_path / "out").__enter__()
    os.utime(lock, (time.time() - 700,) * 2)
    with claimed(tmp_path / "out"):
        assert json.loads(lock.read_text())["process"] == os.getpid()
        assert time.time() - lock.stat().st_mtime < 100
    assert not list((tmp_path / "out").iterdir())
    assert [record.getMessage() for record in caplog.records] == [
        f"the folder {tmp_path / 'out'} was in use by process 12 on the machine node7, which has given no sign of life "
        "for 10 minutes; it is taken over"
    ]


def test_an_old_lock_of_another_machine_stays_where_the_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = owner(tmp_path / "out", host="node7", boot="another", process=12)
    os.utime(lock, (0, 0))
    monkeypatch.setattr("nni_proxyless.files.file_lock.fcntl", None)
    with pytest.raises(InputError, match="process 12 on the machine node7"):
        claimed(tmp_path / "out").__enter__()
    assert lock.exists()


def test_the_holder_of_a_lock_touches_it_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SIGN_OF_LIFE_S", 0.01)
    threads = set(threading.enumerate())
    with claimed(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        limit = time.monotonic() + 30
        while not (tmp_path / LOCK).stat().st_mtime > 0:
            assert time.monotonic() < limit
            time.sleep(0.01)
    assert set(threading.enumerate()) == threads


def test_a_lock_that_was_taken_over_is_not_removed_by_its_former_holder(tmp_path: Path) -> None:
    """A machine may be suspended for an hour and then go on."""
    with claimed(tmp_path):
        before = owner(tmp_path, host="node7", boot="another", process=12).read_bytes()
    assert (tmp_path / LOCK).read_bytes() == before


def test_the_working_directory_may_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with claimed(Path("a") / "b"), claimed_file(Path("c.csv")):
        os.chdir(tmp_path / "there")
        assert {path.name for path in (tmp_path / "here").rglob("*")} == {"a", "b", LOCK, ".c.csv.lock"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "there"]


@pytest.mark.parametrize(
    "content", ["", "not JSON", "[1]", '{"host": "x"}', '{"host": 1, "boot": 2, "process": 1e999}']
)
def test_a_damaged_lock_that_nobody_holds_is_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with claimed(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("kind", ["link", "link to nothing", "second name", "folder", "pipe"])
def test_a_lock_that_is_no_file_of_its_own_is_refused(kind: str, tmp_path: Path) -> None:
    """A folder of results may come from a stranger. Its lock must not lead to a file of the user."""
    victim, lock = tmp_path / "victim", tmp_path / "results" / LOCK
    victim.write_text("kept")
    lock.parent.mkdir()
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "link to nothing":
        lock.symlink_to(tmp_path / "made")
    elif kind == "second name":
        os.link(victim, lock)
    elif kind == "folder":
        lock.mkdir()
    else:
        os.mkfifo(lock)
    with pytest.raises(InputError, match=r"delete it|cannot write"), claimed(lock.parent):
        pass
    assert victim.read_text() == "kept"
    assert not (tmp_path / "made").exists()


def test_the_same_thread_may_claim_a_folder_twice_and_another_one_may_not(tmp_path: Path) -> None:
    told: list[str] = []

    def other() -> None:
        try:
            claimed(tmp_path / "out").__enter__()
        except InputError as error:
            told.append(str(error))

    with claimed(tmp_path / "out"), claimed(tmp_path / "out"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / "out" / LOCK).exists()
    assert f"in use by process {os.getpid()}" in told[0]
    assert not (tmp_path / "out").exists()  # nothing was written


def test_a_forked_process_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from nni_proxyless.files.claims import claimed\n"
        "claim = claimed(Path(sys.argv[1])); claim.__enter__()\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(600)\n"
        "print(child, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            began = time.monotonic()
            with claimed(tmp_path / "out"):
                pass
            assert time.monotonic() - began < claims._HELPERS_END_S  # it need not wait for the child
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with claimed(tmp_path / "out"):
        thread = threading.Thread(target=lambda: told.append(_refusal(tmp_path / "out")))
        told: list[str] = []
        thread.start()
        thread.join()
    assert f"in use by process {os.getpid()}" in told[0]


def _refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        claimed(folder).__enter__()
    return str(refused.value)


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(InputError, match=rf"cannot be a folder, because {tmp_path / 'file'} is a file"):
            claimed(folder).__enter__()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_is_full_or_read_only_is_found_before_anything_starts(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(
        OSError, match=f"^cannot write {tmp_path / 'new' / 'folder' / LOCK}: {os.strerror(number)}$"
    ) as failed:
        claimed(tmp_path / "new" / "folder").__enter__()
    assert isinstance(failed.value, WriteError if number == errno.ENOSPC else InputError)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_file_and_says_so_only_if_there_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_text(tmp_path / "a.txt", "before")

    def full(_temporary: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WriteError) as failed:
        write_atomically(path, full)
    assert str(failed.value) == (
        f"cannot write {path}: No space left on device; the file that was there before is untouched"
    )
    with pytest.raises(WriteError, match=rf"^cannot write {tmp_path / 'b.txt'}: No space left on device$"):
        write_atomically(tmp_path / "b.txt", full)
    with pytest.raises(UnwritablePathError, match=r"cannot write .*/a\.txt/c\.txt: .*/a\.txt is a file, not a folder$"):
        write_text(path / "c.txt", "")
    assert (path.read_text(), [p.name for p in tmp_path.iterdir()]) == ("before", ["a.txt"])
    assert isinstance(failed.value, RunError)


def test_an_error_of_reading_is_not_called_one_of_writing(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere" / "source"

    def copy(temporary: Path) -> None:
        temporary.write_bytes(source.read_bytes())

    with pytest.raises(FileNotFoundError) as failed:
        write_atomically(tmp_path / "here" / "copy", copy)
    assert failed.value.filename == str(source)


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    rename, synchronise = os.replace, os.fsync

    def fsync(handle: int) -> None:
        done.append("file" if os.path.isfile(f"/proc/self/fd/{handle}") else "folder")
        synchronise(handle)

    def replace(*paths: Any) -> None:
        done.append("rename")
        rename(*paths)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files.os, "replace", replace)
    write_text(tmp_path / "a.txt", "text")
    assert done == ["file", "rename", "folder"]


def test_files_are_synchronised_through_a_handle_that_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows answers EBADF otherwise, and has neither `pread` nor `pwrite`, nor synchronises folders."""
    synchronise = os.fsync

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        synchronise(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "pwrite")
    owner(tmp_path / "out")
    with claimed(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / LOCK).read_text())["process"] == os.getpid()
        write_text(tmp_path / "out" / "a.txt", "text")
    assert [path.read_text() for path in (tmp_path / "out").iterdir()] == ["text"]


def test_a_umask_that_makes_files_read_only_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def only_read(path: Any, flags: int, *mode: Any, **rest: Any) -> int:  # the superuser may write them all the same
        if flags & os.O_ACCMODE == os.O_RDWR and os.path.exists(path) and not os.stat(path).st_mode & 0o200:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, flags, *mode, **rest)

    monkeypatch.setattr(os, "open", only_read)
    before = os.umask(0o222)
    try:
        written = write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert (written.read_text(), written.stat().st_mode & 0o777) == ("text", 0o444)


def test_only_temporary_files_are_swept(tmp_path: Path) -> None:
    names = [".a.csv.abcd_012", ".a.csv", ".a.csv.lock", ".b.csv.abcd_012", "a.csv", ".a.csv.abcd_0123"]
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path, ["a.csv"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])


def test_two_measurements_do_not_write_one_table(
    tmp_path: Path, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "space.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    out = tmp_path / "table.yml"
    owner(tmp_path, process=os.getppid(), started=psutil.Process(os.getppid()).create_time())
    (tmp_path / LOCK).rename(tmp_path / ".table.yml.lock")
    words = ["latency", "measure", "--space", str(tmp_path / "space.yml"), "--backend", "torch", "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"the file {out} is in use by process {os.getppid()} on this machine" in capsys.readouterr().err
    assert not out.exists()
    (tmp_path / ".table.yml.lock").unlink()
    with claimed_file(out):
        assert (tmp_path / ".table.yml.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["space.yml"]
