"""What the command line accepts: settings around options, outputs in new folders; and the form of its messages."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from nni_proxyless.cli import runs
from nni_proxyless.cli.entry import parse
from nni_proxyless.cli.messages import LONGEST_LINE, one_line
from nni_proxyless.cli.outputs import check_apart, output_file, output_folder
from nni_proxyless.errors import InputError
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge.preflight import check_budget
from nni_proxyless.search.recipe import Recipe


@pytest.mark.parametrize(
    "words",
    [
        "search r.yml epochs=3 seed=1 --output {out}",
        "search r.yml --output {out} epochs=3 seed=1",
        "search r.yml epochs=3 --output {out} seed=1",
        "search --output {out} r.yml epochs=3 seed=1",
        "search r.yml --output {out} epochs=3 --overwrite seed=1",
    ],
)
def test_settings_stand_before_and_after_options(words: str, tmp_path: Path) -> None:
    options = parse(words.format(out=tmp_path / "out").split())
    assert (options.recipe, options.settings) == ("r.yml", ["epochs=3", "seed=1"])
    assert options.output == tmp_path / "out"


def test_one_parser_reads_several_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An option is given twice only within one command line."""
    words = ["search", "r.yml", "--output", str(tmp_path / "out")]
    assert parse(words).output == parse(words).output
    with pytest.raises(SystemExit):
        parse([*words, "--output", str(tmp_path / "other")])
    assert "--output: is given twice" in capsys.readouterr().err


def test_of_a_long_message_the_beginning_and_the_end_remain() -> None:
    text = one_line("nni-proxyless show: error", "received " + "x y " * 1000 + "choose another")
    assert len(text) <= LONGEST_LINE
    assert text.startswith("nni-proxyless show: error: received x y")
    assert text.endswith("x y choose another")
    assert one_line("a", "b\nc\x1b[31m\td") == "a: b c?[31m d"
    assert one_line("a", "x" * 300) == f"a: {'x' * 200}…"


def test_outputs_may_be_new_and_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    assert output_file(str(tmp_path / "a" / "b.csv")) == tmp_path / "a" / "b.csv"
    assert output_folder(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "old.csv").write_text("x")
    assert output_file(str(tmp_path / "old.csv")).read_text() == "x"


def test_a_file_of_the_same_content_may_be_replaced_but_not_an_input_under_another_name(tmp_path: Path) -> None:
    table, other, link = tmp_path / "table.yml", tmp_path / "other.yml", tmp_path / "link.yml"
    table.write_text("x")
    other.write_text("x")
    link.symlink_to(table)
    check_apart(argparse.Namespace(table=table, out=other))
    with pytest.raises(InputError, match=r"--out .*link.yml would replace what the command reads"):
        check_apart(argparse.Namespace(table=[other, table], out=link))


def test_a_budget_that_is_only_a_reference_may_be_below_the_fastest_network(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    costs = tiny_table.costs(tiny_spec)
    budget = costs.smallest / 2
    check_budget(Recipe(budget_ms=budget, objective="add_linear"), costs)
    with pytest.raises(InputError, match="no network of this space"):
        check_budget(Recipe(budget_ms=budget), costs)
    with pytest.raises(InputError, match="no network of this space"):
        check_budget(Recipe(budget_ms=budget, objective="add_linear", strategy="darts"), costs)


def test_nnictl_is_found_beside_python_or_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, elsewhere = tmp_path / "python" / "nnictl", tmp_path / "user" / "nnictl"
    for path in (beside, elsewhere):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    started: list[tuple[str, list[str], str]] = []
    monkeypatch.setattr(os, "execve", lambda path, words, env: started.append((str(path), words, env["PATH"])))
    monkeypatch.setattr(sys, "executable", str(beside.with_name("python3")))
    monkeypatch.setenv("PATH", str(elsewhere.parent))
    options = argparse.Namespace(host=None, words=["stop", "abc"])
    for path in (beside, elsewhere):
        runs.nnictl(options)
        assert started[-1][:2] == (str(path), [str(path), "stop", "abc"])
        assert started[-1][2].split(os.pathsep)[0] == str(path.parent)  # trials find `nni-proxyless` there
        path.unlink()
    with pytest.raises(InputError, match=r"there is no .*python/nnictl and none on PATH; install NNI"):
        runs.nnictl(options)
