"""The path of the model is one word of the user's command, and a program can neither hang nor flood the measurement."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from nni_proxyless.errors import InputError, RunError
from nni_proxyless.latency import CommandBackend, watched_program
from nni_proxyless.latency.backends import pattern_search
from nni_proxyless.latency.backends.command_line import MODEL_VARIABLE, check_command, shell_line
from nni_proxyless.latency.stop_session import session_processes

HOSTILE = ["$(touch stolen)", "`touch stolen`", "a;touch stolen;", "it's", 'say "a"', "two words", "{threads}", "-n"]


def command(text: str, **settings: Any) -> CommandBackend:
    return CommandBackend(command=text, **{"retries": 0, **settings})


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_with_any_characters_is_one_word(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / name / "model.onnx"
    model.parent.mkdir()
    model.write_bytes(b"x" * 37)
    monkeypatch.chdir(tmp_path)
    assert command("wc -c < {model}").run(model) == 37.0
    assert command("echo $(cat {model} | wc -c) {threads}00 | cut -d ' ' -f 2", threads=4).run(model) == 400.0
    assert command("sh -c 'wc -c < \"$1\"' sh {model}").run(model) == 37.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_folder_for_temporary_files_with_a_hostile_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "$(touch stolen)';touch stolen;'"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"x" * 21)
    backend = command("test $(basename {model}) = model.onnx && wc -c < {model}")
    workload = backend.file_loader(tmp_path / "m.onnx", (1, 8, 8))()
    assert workload.sample(1) == 21.0
    del workload
    gc.collect()
    assert list(backend.folder().iterdir()) == []
    del backend
    gc.collect()
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "line",
    [
        "bench {model}",
        "bench --m={model} 'a b' \"c d\"",
        "adb push {model} /x && adb shell 'bench \"/x\"'",
        'echo "$(bench {model})"',
        "echo `bench {model}`",
        "(bench {model}); ( bench {model} )",
        r"bench \' {model} \"",
        "awk '{print $1}' {model}",
        "echo ${HOME} {model}",
        'echo "${HOME}" {model}',
        "bench {model} # it's",
        "# don't\nbench {model}",
        "echo $((1 << 2)); bench {model}",
        "echo $(( (1 + 2) << 3 )) && ((1)) ; bench {model}",
    ],
)
def test_commands_with_a_bare_path_are_taken(line: str) -> None:
    assert check_command(line) == line
    assert f'"${MODEL_VARIABLE}"' in shell_line(line, 1, 1)
    assert "{model}" not in shell_line(line, 1, 1)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("bench '{model}'", "stands in quotes"),
        ('bench "{model}"', "stands in quotes"),
        ('bench "--model={model}" x', "stands in quotes"),
        ("sh -c 'bench {model}'", "stands in quotes"),
        ("ssh pi \"bench '{model}'\"", "stands in quotes"),
        ("bench \"$(cat '{model}')\"", "stands in quotes"),
        ('echo "`bench {model}`"', "stands in quotes"),
        ("bench {model} && sh -c 'bench {model}'", "stands in quotes"),
        ("echo a#'b {model}'", "stands in quotes"),
        ("cat << E # it's\n{model}\nE", "stands in a here-document"),
        ("bench ${x:-{model}}", r"stands in \$\{...\}"),
        ("bench ${model}", r"stands directly after \$"),
        (r"bench \{model}", r"stands directly after \\"),
        ("cat <<EOF\n{model}\nEOF", "stands in a here-document"),
        ("x {model}\0", "without NUL"),
        ("x {model} \ud800", "at most 100000 bytes of text"),
        ("x {model}" + "y" * 100_000, "at most 100000 bytes"),
        ("", r"needs a command with \{model\}"),
        (5, r"needs a command with \{model\}"),
        ("z" * 5000, r"needs a command with \{model\}"),
    ],
)
def test_a_path_in_quotes_is_refused(line: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as error:
        command(line)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
def test_no_text_that_is_taken_makes_the_path_code(shell: str, tmp_path: Path) -> None:
    """Whatever stands around `{model}`: a shell that reads the line never runs what the path says."""
    pieces = ["{model}", "'", '"', "`", "$(", ")", "\\", " ", "$", "<<E\n", "#", "${x:-", "}", "\n", "echo "]
    path = f"$(touch {tmp_path}/stolen)';touch {tmp_path}/stolen;\"`touch {tmp_path}/stolen`"
    generator = random.Random(0)
    lines = ["".join(generator.choices(pieces, k=generator.randint(1, 7))) for _ in range(300)]
    filled = [shell_line(line, 1, 1) for line in lines if "{model}" in line]
    assert len(filled) > 50
    script = [f"timeout 5 {shell} -c {shlex.quote(line)} </dev/null >/dev/null 2>&1" for line in filled]
    subprocess.run(["sh"], input="\n".join(script), text=True, env={**os.environ, MODEL_VARIABLE: path}, check=False)
    assert list(tmp_path.iterdir()) == []


def test_a_flood_is_stopped_on_both_streams(tmp_path: Path) -> None:
    for line in ("true {model}; yes", "true {model}; yes >&2"):
        with pytest.raises(RunError, match=r"it printed more than 1024 KiB and was stopped"):
            command(line).run(tmp_path / "m")


def test_output_that_is_large_or_no_text_is_read(tmp_path: Path) -> None:
    long = "true {model}; head -c 1000000 /dev/zero | tr '\\0' '\\n'; echo 12.5 ms; head -c 1000000 /dev/zero >&2"
    assert command(long, pattern=r"([\d.]+) ms").run(tmp_path / "m") == 12.5
    assert command("true {model}; printf '\\377\\376 \\0 12.5 ms\\n'").run(tmp_path / "m") == 12.5
    with pytest.raises(RunError, match=r"exit code 1; it said: .*ÿ.*") as error:
        command("true {model}; printf '\\033]0;title\\007 \\377'; exit 1").run(tmp_path / "m")
    assert str(error.value).isprintable()


def test_a_very_long_line_needs_a_pattern(tmp_path: Path) -> None:
    line = "true {model}; head -c 30000 /dev/zero | tr '\\0' x; echo; echo 12.5 ms"
    for settings in ({}, {"tool": "executorch"}):
        with pytest.raises(RunError, match=r"a line of 30000 characters, and a line may have 20000; set pattern"):
            command(line, **settings).run(tmp_path / "m")
    assert command(line, pattern=r"([\d.]+) ms").run(tmp_path / "m") == 12.5


def test_a_tool_whose_output_makes_no_sense_is_a_failed_run(tmp_path: Path) -> None:
    said = "Model executed successfully $(head -c 5000 /dev/zero | tr '\\0' 9) time(s) in 5 ms"
    with pytest.raises(RunError, match="cannot be read"):
        command(f'true {{model}}; echo "{said}"', tool="executorch").run(tmp_path / "m")


def test_a_pattern_that_backtracks_for_ever_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pattern_search, "SECONDS", 0.2)
    with pytest.raises(RunError, match=r"pattern '\(a\+\)\+b' needs more than 0.2 seconds"):
        command("true {model}; echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", pattern="(a+)+b").run(tmp_path)


def test_what_a_command_leaves_running_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in the background keeps the output open. Its command has ended, and its answer counts."""
    monkeypatch.setattr(watched_program, "_GRACE_S", 0.1)
    line = "true {model}; sleep 300.8251 & echo 12.5 ms"
    assert command(line).run(tmp_path / "m") == 12.5
    assert _ended("300.8251")


@pytest.mark.parametrize(
    "line",
    ["sleep 301.8251", "timeout 302 sleep 301.8251", "exec >&- 2>&-; sleep 301.8251", "trap '' TERM; sleep 301.8251"],
)
def test_a_program_that_never_ends_is_stopped(line: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no answer within timeout_s = 0.3 seconds"):
        command(f"true {{model}}; {line}", timeout_s=0.3).run(tmp_path / "m")
    assert _ended("301.8251")


def _ended(seconds: str) -> bool:
    """Wait until no process sleeps so long, because a signal takes its time; at most ten seconds."""
    words = [b"sleep", seconds.encode()]
    for _ in range(200):
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(path.read_bytes().split(b"\0")[:2])
        if words not in found:
            return True
        time.sleep(0.05)
    return False


def test_a_session_is_found(tmp_path: Path) -> None:
    assert os.getpid() in session_processes(os.getsid(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeout_s": 10**400}, "timeout_s must be a positive number of seconds up to 604800"),
        ({"timeout_s": 1e300}, "timeout_s must be a positive number of seconds up to 604800"),
        ({"timeout_s": float("nan")}, "timeout_s must be"),
        ({"retries": 10**400}, "retries must be a whole number from 0 to 100"),
        ({"pattern": "(" * 1001}, "at most 1000 characters"),
        ({"pattern": "(" * 999}, "is not a regular expression"),
        ({"pattern": 5}, "pattern must be a regular expression"),
        ({"device": ["a"]}, "device must be a name"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        command("x {model}", **settings)
    assert len(str(error.value)) < 500
