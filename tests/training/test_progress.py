"""The progress within epochs: a bar on a terminal, plain lines elsewhere, and nothing if it is to be quiet."""

from __future__ import annotations

import io
import sys

import pytest

from nni_proxyless.progress import EpochProgress, duration, progress_bar, quiet_progress, write_above_bars


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "less than 1 s"), (1, "1 s"), (12.4, "12 s"), (99, "99 s"), (131, "2 min 10 s"), (180, "3 min"),
        (597, "10 min"), (1500, "25 min"), (3600, "1 h"), (4800, "1 h 20 min"), (40_000, "11 h"),
        (100 * 3600, "4 days 4 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_lines_tell_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    """3 epochs of 100 steps, each of 2 s: after 30 steps of the second epoch, 140 s and 340 s are left."""
    clock = Clock()
    progress = EpochProgress(3, clock, every_s=50.0)
    for epoch in range(2):
        progress.begin(epoch, 100)
        for done in range(1, 101 if epoch == 0 else 31):
            clock.now += 2.0
            progress.step(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1/3: step 25/100, 2 min 30 s left in this epoch, 9 min 10 s in all"
    assert lines[1] == "epoch 1/3: step 50/100, 1 min 40 s left in this epoch, 8 min 20 s in all"
    assert lines[-1] == "epoch 2/3: step 25/100, 2 min 30 s left in this epoch, 5 min 50 s in all"
    assert len(lines) == 4  # no line at the end of an epoch, which has a line of its own


def test_short_epochs_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = EpochProgress(2, clock)
    progress.begin(0, 10)
    for done in range(1, 11):
        clock.now += 0.5
        progress.step(done)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal_below_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", written)
    clock = Clock()
    progress = EpochProgress(4, clock)
    progress.begin(0, 5)
    clock.now = 60.0
    progress.step(1)
    write_above_bars("a line of the log")
    progress.close()
    text = written.getvalue()
    assert "epoch 1/4:" in text
    assert "19 min left in all" in text  # 19 steps of a minute each
    assert "a line of the log\n" in text
    assert text.rstrip(" ").endswith("\r")  # the bar is gone


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    clock = Clock()
    with quiet_progress():
        progress = EpochProgress(1, clock)
        progress.begin(0, 9)
        clock.now = 99.0
        progress.step(3)
        with progress_bar("measuring", every_s=0.0) as step:
            step("operators", 1, 2)
    assert written.getvalue() == ""
    with progress_bar("measuring", every_s=0.0) as step:
        step("operators", 1, 2)
    if not terminal:
        assert written.getvalue() == "measuring: 1 of 2 operators\n"
    assert "operators" in written.getvalue()


def test_a_bar_appears_only_when_there_is_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setattr(sys, "stderr", written)
    with progress_bar("measuring"):
        pass
    assert written.getvalue() == ""
