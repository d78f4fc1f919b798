"""Killed processes leave no process and, after the next start, no temporary folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from nni_proxyless.errors import RunError
from nni_proxyless.files import work_folder
from nni_proxyless.files.work_folder import PREFIX, WorkFolder, remove_abandoned
from nni_proxyless.latency import fresh_process
from nni_proxyless.latency.backends.command import CommandBackend
from nni_proxyless.latency.fresh_process import FreshProcess
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import save_weights
from nni_proxyless.report.page import PAGE
from tests.helpers import REPOSITORY, table_of
from tests.warm import WarmProcess, run_warm
from tests.warm_changes import MEASURE_ONCE

MARK = "NNI_PROXYLESS_TEST_OF_KILLS"


def start(code: str, mark: Path, **environment: str) -> subprocess.Popen[str]:
    """Start Python code whose processes are all marked, and wait until it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env={**os.environ, MARK: str(mark), **environment},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    process.send_signal(number)
    process.communicate()


def marked(mark: Path) -> list[str]:
    """Return the command lines of all living processes with a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


def all_ended(mark: Path) -> bool:
    """Wait until no process with the mark lives, at most ten seconds."""
    for _ in range(200):
        if not marked(mark):
            return True
        time.sleep(0.05)
    return False


def until(condition: Path) -> None:
    """Wait for a file, at most a minute."""
    for _ in range(1200):
        if condition.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{condition} did not appear")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_ends_with_the_process_that_runs_it(number: int, tmp_path: Path) -> None:
    """The program has children, and one of them has a process group of its own."""
    line = f"sleep 333 & timeout 334 sleep 333 & touch {tmp_path}/on; sleep 333"
    code = (
        "import sys; from nni_proxyless.latency.watched_program import run_watched\n"
        f"print('started', flush=True); run_watched(['sh', '-c', {line!r}], timeout_s=300)"
    )
    process = start(code, tmp_path)
    until(tmp_path / "on")
    assert sum("sleep 333" in words for words in marked(tmp_path)) >= 3
    end(process, number)
    assert all_ended(tmp_path)


def test_a_daemon_that_a_program_starts_lives_on(tmp_path: Path) -> None:
    """Such as the server that the first call of `adb` starts. It has a session of its own, and no open output."""
    line = f"setsid sleep 335 >/dev/null 2>&1 & touch {tmp_path}/on; sleep 0.1; echo 5"
    code = (
        "from nni_proxyless.latency.watched_program import run_watched\n"
        f"print('started', flush=True); print(run_watched(['sh', '-c', {line!r}], timeout_s=300).output)"
    )
    process = start(code, tmp_path)
    process.communicate()
    assert marked(tmp_path) == ["sleep 335"]
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(MARK) == str(tmp_path):
                one.kill()


@pytest.mark.parametrize("system", ["", "import sys; sys.platform = 'other'\n"])
def test_a_helper_ends_with_its_parent(system: str, tmp_path: Path) -> None:
    """On Linux the kernel ends it. On other systems a thread does, which is tried here as well."""
    helper = f"{system}import os; from nni_proxyless.latency.parent_process import end_with_parent"
    helper += (
        f"\nend_with_parent(os.getppid()); open({str(tmp_path / 'on')!r}, 'w').close(); import time; time.sleep(300)"
    )
    code = f"import subprocess, sys; print('started', flush=True); subprocess.run([sys.executable, '-c', {helper!r}])"
    process = start(code, tmp_path)
    until(tmp_path / "on")
    end(process)
    assert all_ended(tmp_path)


def test_a_measuring_process_whose_parent_is_gone_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nni_proxyless.latency.worker", "1"],
        capture_output=True, text=True, input='{"job": 1}\n', cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_abandoned_folders_are_removed_and_used_ones_are_not(tmp_path: Path) -> None:
    used = WorkFolder(tmp_path)
    code = (
        "import time; from pathlib import Path; from nni_proxyless.files.work_folder import WorkFolder\n"
        f"made = WorkFolder(Path({str(tmp_path)!r})); (made.path / 'x').mkdir(); (made.path / 'x' / 'y').touch()\n"
        "print('started', flush=True); time.sleep(300)"
    )
    process = start(code, tmp_path)
    with WorkFolder(tmp_path) as other:
        assert len(list(tmp_path.iterdir())) == 3  # that of the other process is in use
        end(process)
        assert len(list(tmp_path.iterdir())) == 3  # it has left its folder
        (tmp_path / f"{PREFIX}link").symlink_to(used.path)
        (tmp_path / f"{PREFIX}file").touch()
        (tmp_path / "somebody-elses").mkdir()
        remove_abandoned(tmp_path, PREFIX)
        last = WorkFolder(tmp_path)
        kept = {used.path.name, other.name, last.path.name, f"{PREFIX}link", f"{PREFIX}file", "somebody-elses"}
        assert {path.name for path in tmp_path.iterdir()} == kept
    last.close()
    last.close()
    assert not other.exists()
    assert not last.path.exists()
    path = used.path
    del used
    assert not path.exists()


def test_any_new_folder_removes_what_is_abandoned_in_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next command may be an export, whose folder is elsewhere."""
    (tmp_path / "usual" / f"{PREFIX}abandoned").mkdir(parents=True)
    (tmp_path / "usual" / ".export-abandoned").mkdir()
    (tmp_path / "out" / ".export-abandoned").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "usual"))
    WorkFolder(tmp_path / "out", ".export-").close()
    assert [path.name for path in tmp_path.rglob("*abandoned*")] == [".export-abandoned"]
    assert (tmp_path / "usual" / ".export-abandoned").exists()


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_keeps_the_folders_of_others(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can see there whether another process uses a folder."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / f"{PREFIX}others" / "model").mkdir(parents=True)
    monkeypatch.setattr("fcntl.flock", flock)
    handles = len(os.listdir("/proc/self/fd"))
    with WorkFolder(tmp_path) as own:
        assert own.is_dir()
        remove_abandoned(tmp_path, PREFIX)
        assert own.is_dir()
    assert [path.name for path in tmp_path.rglob("*")] == [f"{PREFIX}others", "model"]
    assert len(os.listdir("/proc/self/fd")) == handles


def test_files_of_the_quantiser_are_in_a_folder_that_the_next_start_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Path] = []

    def quantize(_model: object, output: Path, *_: object, **__: object) -> None:
        places.extend((output.parent, Path(tempfile.gettempdir())))
        output.write_bytes(b"int8")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("onnxruntime.quantization.quantize_static", quantize)
    assert quantize_static(export_onnx(torch.nn.Conv2d(1, 1, 1), (1, 2, 2), 1)) == b"int8"
    assert {(place.parent, place.name.startswith(PREFIX)) for place in places} == {(tmp_path, True)}
    assert list(tmp_path.iterdir()) == []


def test_a_process_searches_a_place_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder for temporary files may have many thousands of entries, and each measurement makes a folder."""
    searched: list[Path] = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(work_folder, "remove_abandoned", lambda place, _: searched.append(place))
    (tmp_path / "out").mkdir()
    for place in (None, None, tmp_path / "out", tmp_path, tmp_path / "out"):
        WorkFolder(place).close()
    assert searched == [tmp_path, tmp_path / "out"]


def test_folders_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    """Every process removes what is abandoned when it makes its own, so each may meet folders that are just made."""
    code = (
        "from pathlib import Path; from nni_proxyless.files.work_folder import WorkFolder\n"
        "print('started', flush=True); input()\n"
        f"kept = [WorkFolder(Path({str(tmp_path)!r})) for _ in range(60)]\n"
        "assert all(one.path.is_dir() for one in kept), 'removed'"
    )
    processes = [start(code, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_measurement_that_is_killed_leaves_nothing(
    tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that measures is killed, and then, in another measurement, the process that has started it."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    backend = CommandBackend(command=f"touch {tmp_path}/on; timeout 336 sleep 335; true {{model}}", retries=0)
    settings = {"networks": [], "journal_path": str(tmp_path / "journal")}
    job = {"space": tiny_spec.to_dict(), "settings": settings, "backend": backend.settings}
    monkeypatch.setenv(MARK, str(tmp_path / "first"))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with contextlib.closing(FreshProcess(job)) as measuring:
        measuring.wait_until_ready()
        measuring._say("go")
        until(tmp_path / "on")
        measuring._process.kill()
        with pytest.raises(RunError, match="the measuring process was ended by the signal SIGKILL"):
            measuring.measure("command", None)
    assert all_ended(tmp_path / "first")
    assert list(temporary.iterdir()) == []

    (tmp_path / "on").unlink()
    code = (
        "import json; from nni_proxyless.latency.fresh_process import FreshProcess\n"
        f"process = FreshProcess(json.loads({json.dumps(job)!r})); print('started', flush=True)\n"
        "process.wait_until_ready(); process.measure('command', None)"
    )
    process = start(code, tmp_path / "second", TMPDIR=str(temporary))
    until(tmp_path / "on")
    assert any("worker" in words for words in marked(tmp_path / "second"))
    for _ in range(200):  # the program's child starts after it has written the file
        if "sleep 335" in marked(tmp_path / "second"):
            break
        time.sleep(0.05)
    assert "sleep 335" in marked(tmp_path / "second")
    end(process)
    assert all_ended(tmp_path / "second")
    assert len(list(temporary.iterdir())) == 1
    remove_abandoned(temporary, PREFIX)
    assert list(temporary.iterdir()) == []


def test_what_a_measuring_process_says_at_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It may be killed in the middle of a message, and libraries may print anything."""
    program = tmp_path / "worker.py"
    program.write_text(
        "import os, sys; sys.stdin.readline()\n"
        "os.write(2, b'loading\\n\\xff\\x1b[31m no memory ' + b'x' * 100000 + b' \\n')\n"
        'print(\'{"progress": ["a"\', flush=True); os._exit(3)\n'
    )
    shutil.copy(program, tmp_path / "odd_worker.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fresh_process, "_WORKER", "odd_worker")
    with contextlib.closing(FreshProcess({})) as measuring:
        measuring.wait_until_ready()
        with pytest.raises(RunError, match=r"measuring with x failed: .*") as error:
            measuring.measure("x", None)
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.fixture
def network_file(tiny_spec: SpaceSpec, tmp_path: Path) -> Path:
    """An architecture file with weights beside it."""
    choices = {layer.label: layer.names[0] for layer in tiny_spec.layers}
    architecture = Architecture.of_space(tiny_spec, choices)
    save_weights(architecture.build(), tmp_path / "weights.pt")
    return architecture.save(tmp_path / "architecture.json")


def killed_when(condition: Callable[[], object], words: list[str], folder: Path) -> None:
    """Start a command, kill it with SIGKILL when a condition holds, and wait until nothing of it runs."""
    process = WarmProcess(words, folder, {**os.environ, MARK: str(folder), MEASURE_ONCE: "1"})
    while not condition():
        assert process.poll() is None, process.stderr
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL, "it had ended before the kill"
    assert all_ended(folder)


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_nothing_half_written(network_file: Path, tmp_path: Path) -> None:
    words = ["nni-proxyless", "export", str(tmp_path), "--format", "onnx", "state_dict", "--no-measure"]
    out = tmp_path / "exported"
    killed_when(lambda: list(out.glob(".export-*/model.onnx")), words, tmp_path)
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == []
    done = run_warm(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "architecture.json",
        "export.json",
        "model.onnx",
        "model_card.json",
        "weights.pt",
    ]
    assert (out / "weights.pt").read_bytes() == (tmp_path / "weights.pt").read_bytes()


@pytest.mark.slow
def test_a_report_that_is_killed_is_made_by_the_next_command(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "tests" / "recorded" / "quickstart", tmp_path / "results")
    words = ["nni-proxyless", "report", "results", "--out", "report"]
    page = tmp_path / "report"
    killed_when(lambda: list(page.glob("*.png")), words, tmp_path)
    before = {path.name: path.read_bytes() for path in page.iterdir() if not path.name.startswith(".")}
    assert PAGE not in before
    done = run_warm(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (page / PAGE).is_file()
    assert not list(page.glob(".*"))
    whole = {name: (page / name).read_bytes() for name in before}
    assert whole == before  # each of the files was complete


@pytest.mark.slow
def test_a_validation_that_is_killed_leaves_no_process(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(tiny_spec.to_dict()))
    table_of(tiny_spec).save(tmp_path / "table.yml")
    words = ["nni-proxyless", "latency", "validate", "table.yml", "--space", "tiny.yml", "--networks", "2"]
    words += ["--backend", "command", "--command", f"touch {tmp_path}/on; sleep 335; echo 5 ms {{model}}"]
    killed_when((tmp_path / "on").exists, words, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.yml", "table.yml", "on"}
