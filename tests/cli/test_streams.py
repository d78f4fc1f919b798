"""Output that is plain ASCII, full, closed, or a pipe that nobody reads: an exit code and one line, no traceback."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nni_proxyless.cli.entry import main
from nni_proxyless.cli.streams import guarded_streams
from nni_proxyless.errors import RunError
from nni_proxyless.latency import LatencyTable
from tests.helpers import REPOSITORY


class Failing(io.TextIOBase):
    """An output whose writes, or only whose flushes, fail with an error of the system."""

    def __init__(self, number: int, buffered: bool) -> None:
        self.number = number
        self.buffered = buffered

    def write(self, text: str) -> int:
        if not self.buffered:
            raise OSError(self.number, "of the system")
        return len(text)

    def flush(self) -> None:
        raise OSError(self.number, "of the system")

    def close(self) -> None:
        """Do not flush. The interpreter closes the output when nobody refers to it, and nobody sees an error then."""


def code_of(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def table(tiny_table: LatencyTable, tmp_path: Path) -> Path:
    return tiny_table.save(tmp_path / "tä\u2028ble.yml")


def test_characters_that_the_output_cannot_show(
    table: Path, tiny_table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    output = io.TextIOWrapper(printed, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert code_of("latency", "show", table, "--top", "3") == 0
    assert sys.stdout is output
    assert output.errors == "strict"
    text = printed.getvalue().decode("ascii")
    assert "most expensive entries" in text
    # A name of a file that is not UTF-8 can be printed as well.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    with guarded_streams():
        print("a name: \udcff \x1b]0;title\x07 \x9b2J\tend")
        print("[now] \x1b[32mStarting web server...\x1b[0m \x1b[1;31mred\x1b[m \x1b[2J")  # as NNI's log
    assert b"a name: ? ?]0;title? ?2J\tend\n" in printed.getvalue()
    assert b"[now] Starting web server... red ?[2J\n" in printed.getvalue()


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_output_that_cannot_be_written(
    number: int, buffered: bool, table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(number, buffered))
    assert code_of("latency", "show", table) == (141 if number == errno.EPIPE else 1)
    said = capsys.readouterr().err
    full = "nni-proxyless latency show: error: cannot write to the standard output: of the system\n"
    assert said == ("" if number == errno.EPIPE else full)


def test_error_output_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Failing(errno.ENOSPC, False))
    assert code_of("latency", "show", tmp_path / "none.yml") == 2


def test_a_broken_pipe_of_something_else_is_not_taken_for_the_output(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "device")

    monkeypatch.setattr("nni_proxyless.latency.show.describe", broken)
    assert code_of("latency", "show", table) in (1, 2)
    assert "Broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    """Libraries that print to the standard output would write into that file."""
    code = (
        "import os, sys; from nni_proxyless.cli.streams import guarded_streams\n"
        "with guarded_streams():\n"
        f"    file = os.open({str(tmp_path / 'weights')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "    print('hello'); print('there', file=sys.stderr); os.write(1, b'native'); os.system('echo child')\n"
        "    sys.exit(7 if file > 2 else 8)\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7
    assert (tmp_path / "weights").read_bytes() == b""
    assert sorted(done.stdout.split()) == ([] if closed != "2>&-" else sorted(["hello", "nativechild"]))
    assert done.stderr == ("" if "2>" in closed else "there\n")


@pytest.fixture
def doubtful(tiny_table: LatencyTable, tmp_path: Path) -> Path:
    calibration = replace(tiny_table.calibration, mean_relative_error=0.1)
    return replace(tiny_table, calibration=calibration).save(tmp_path / "doubtful.yml")


def test_warnings_wait_until_the_input_is_accepted(
    doubtful: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("latency", "compare", doubtful, "nowhere.yml") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere.yml" in line

    everything = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", everything)
        patch.setattr(sys, "stderr", everything)
        assert code_of("latency", "compare", doubtful, doubtful) == 0
    warning = f"{doubtful}: the latency table of made up (torch) is doubtful: "
    assert [line.startswith(warning) for line in everything.getvalue().splitlines()[:3]] == [True, True, False]


@pytest.mark.parametrize(
    "error", [RunError("the device is gone"), ValueError("a mistake of ours"), KeyboardInterrupt()]
)
def test_warnings_are_shown_if_a_command_fails_otherwise(
    error: BaseException, doubtful: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("nni_proxyless.latency.compare.compare", fail)
    assert code_of("latency", "compare", doubtful, doubtful) in (1, 130)
    lines = capsys.readouterr().err.splitlines()
    assert "is doubtful" in lines[0]
    assert "is doubtful" not in lines[-1]
