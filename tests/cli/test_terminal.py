"""Colours and tables are for terminals only; numbers stay exact everywhere."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from nni_proxyless.cli import terminal
from nni_proxyless.cli.entry import main
from nni_proxyless.cli.log import log_of_a_command
from nni_proxyless.cli.streams import guarded_streams
from nni_proxyless.errors import RunError

ROWS = [
    ["space", "accuracy", "ms", "file"],
    ["cifar", "0.98612345", "0.6459", "a\x1b[2J.yml"],
    ["x", "1", "12", "b.yml"],
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make the standard output a terminal. pytest undoes this between a fixture and its test, so it is none."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    written = Terminal()
    monkeypatch.setattr(sys, "stdout", written)
    return written


def test_a_table_on_a_terminal_has_lines_and_exact_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    output = on_terminal(monkeypatch)
    with guarded_streams():
        terminal.write_table(ROWS)
        terminal.write_lines("warning: a \x1b[2Jtrap", "result 0.98612345")
    text = output.getvalue()
    assert "─" in text
    assert "\x1b[1m" in text  # the heading
    assert "\x1b[33mwarning\x1b[0m: a ?[2Jtrap" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert [line.split() for line in plain.splitlines()[2:4]] == [
        ["cifar", "0.98612345", "0.6459", "a?[2J.yml"],
        ["x", "1", "12", "b.yml"],
    ]


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_no_color_and_dumb_terminals(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = on_terminal(monkeypatch)
    monkeypatch.setenv(variable, "1" if variable == "NO_COLOR" else "dumb")
    with guarded_streams():
        terminal.write_table(ROWS)
        terminal.write_lines("warning: something")
    assert "\x1b" not in output.getvalue()
    assert "0.98612345" in output.getvalue()
    assert ("─" in output.getvalue()) == (variable == "NO_COLOR")


def test_a_table_that_is_too_wide_for_the_terminal_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    output = on_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "20")
    with guarded_streams():
        terminal.write_table(ROWS)
    assert "cifar  0.98612345  0.6459  a?[2J.yml\n" in output.getvalue()


def test_a_pipe_gets_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded_streams():
        terminal.write_table(ROWS)
        terminal.write_lines("warning: something")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "space  accuracy    ms      file"
    assert lines[2:] == ["x      1           12      b.yml", "warning: something"]


@pytest.mark.parametrize("coloured", [True, False])
def test_help_is_in_colour_on_a_terminal_only(coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    output = on_terminal(monkeypatch)
    written = output if coloured else io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    with pytest.raises(SystemExit):
        main(["search", "--help"])
    text = written.getvalue()
    assert ("\x1b[36m--output\x1b[0m" in text) == coloured
    assert "--output" in re.sub(r"\x1b\[[\d;]*m", "", text)
    assert coloured or "\x1b" not in text


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ({}, ["notice", "caution"]),
        ({"quiet": True}, ["caution"]),
        ({"verbose": True}, ["detail", "notice", "caution"]),
    ],
)
def test_how_much_is_said(level: dict[str, bool], said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("nni_proxyless.something")
    before = logging.getLogger("nni_proxyless").level
    with log_of_a_command(**level):
        log.debug("detail")
        log.info("notice")
        log.warning("caution")
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == said
    assert logging.getLogger("nni_proxyless").level == before


def test_an_error_is_in_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", written)

    def fails(_: object) -> int:
        raise RunError("it \x1b[2J broke")

    monkeypatch.setattr("nni_proxyless.cli.installation.register", fails)
    from nni_proxyless.cli import commands

    commands.make_parser.cache_clear()
    with pytest.raises(SystemExit):
        main(["register"])
    commands.make_parser.cache_clear()
    assert written.getvalue() == "nni-proxyless register: \x1b[31merror\x1b[0m: it ?[2J broke\n"
