"""User programs as backends, also slow, noisy, failing, hanging and silent ones, and interrupted measurements."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import pytest

from nni_proxyless.errors import InputError, RunError
from nni_proxyless.latency import (
    CommandBackend,
    LatencyTable,
    Protocol,
    make_backend,
    measure_table,
    measure_table_isolated,
)
from nni_proxyless.latency.journal import Journal, export_samples
from nni_proxyless.latency.validate import table_backend
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.targets import Target

ONCE = Protocol(warmup_s=0, settle_s=0, sample_s=0, min_rounds=1, max_rounds=1)


def command(text: str, **settings: Any) -> CommandBackend:
    return CommandBackend(command=f"true {{model}}; {text}", **{"retries": 0, **settings})


@pytest.mark.parametrize(
    ("said", "milliseconds"),
    [
        ("echo 12.5", 12.5),
        ("echo 'latency: 12.5 ms'", 12.5),
        ("echo 'avg=1.25e1ms.'", 12.5),
        ("echo 'warming up 99'; echo 'model2 took 12.5'", 12.5),
        ("echo 'latency 12.5 ms'; echo 'memory: 9.75 MB'; echo '80 FPS'", 12.5),
        ("printf '12.5'; echo 'noise 3' >&2", 12.5),
        # Latin-1, and UTF-16 with and without a mark of the byte order.
        (r"printf '12500 \265s \261 300 \265s\n'", 12.5),
        (r"printf '\377\3761\0002\000.\0005\000m\000s\000'", 12.5),
        (r"printf '1\0002\000.\0005\000m\000s\000'", 12.5),
        (r"printf '\0001\0002\000.\0005\000m\000s'", 12.5),
    ],
)
def test_what_is_printed_is_understood(said: str, milliseconds: float, tmp_path: Path) -> None:
    assert command(said).run(tmp_path / "m") == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    ("said", "settings", "milliseconds"),
    [
        ("echo 'Inference timings in us: Init: 5, Inference (avg): 4003.2' >&2", {"tool": "benchmark_model"}, 4.0032),
        ("echo 'm  min =    1.10  max =    1.30  avg =    1.20' >&2", {"tool": "benchncnn"}, 1.2),
        ("echo 'GPU Compute Time: min = 1 ms, max = 3 ms, mean = 2 ms, median = 1.9 ms'", {"tool": "trtexec"}, 1.9),
        ("echo '[ - ] m.mnn  max = 3 ms  min = 1 ms  avg = 2 ms'", {"tool": "benchmark.out"}, 2.0),
        ("echo latency: 12500 us >&2", {}, 12.5),
        ("echo 12500", {"unit": "us"}, 12.5),
        ("echo 12.5 ms", {"unit": "us"}, 12.5),
        ("echo 'a 3 b 4 c 12.5'", {"pattern": r"b (\d+)"}, 4.0),
        ("echo 'a 3 us b 4'; echo 'a 5 us b 6'", {"pattern": r"a (\d+)"}, 0.005),
        ("echo 'a 3 us'", {"pattern": r"a (\d+)", "unit": "us"}, 0.003),
        ("echo 'a 3'", {"pattern": r"a (\d+)", "unit": "s"}, 3000.0),
        ("echo 'a 3' >&2; echo b", {"pattern": r"a (\d+)"}, 3.0),
        ("echo 'a 3' >&2; echo a 4", {"pattern": r"a (\d+)"}, 4.0),
        ("echo 'latency_us: 4003,5'", {"pattern": r"us: ([\d,]+)"}, 4.0035),
    ],
)
def test_tools_units_patterns_and_both_streams(
    said: str, settings: dict[str, Any], milliseconds: float, tmp_path: Path
) -> None:
    assert command(said, **settings).run(tmp_path / "m") == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    ("said", "settings", "message"),
    [
        ("echo 12.5 ms", {"tool": "trtexec"}, "no line 'GPU Compute Time' with a median; the last line was: 12.5 ms"),
        ("echo 'm  min = 0.00  max = 0.00  avg = 0.00'", {"tool": "benchncnn"}, "'0.00 ms', which is not a positive"),
        ("echo 'a 3 us'", {"pattern": r"a (\d+)", "unit": "ms"}, "'3' with the unit us beside it, but unit is ms"),
        ("echo 'a x'", {"pattern": r"a (\w+)"}, "'x', which is not a number; the line was: a x"),
        ("echo b", {"pattern": r"a (\d+)"}, "nothing that matches pattern"),
        ("true", {"pattern": r"a (\d+)"}, "it printed nothing"),
        ("echo early >&2; echo late; exit 7", {"tool": "trtexec"}, "exit code 7; it said: early"),
    ],
)
def test_what_a_tool_or_a_pattern_does_not_find_is_said(
    said: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=message):
        command(said, **settings).run(tmp_path / "m")


def test_the_first_sample_is_shown_once(tmp_path: Path) -> None:
    backend = command("echo P50 Latency is 0.0125 sec")
    shown: list[str] = []
    backend.note = shown.append
    for label in ("conv 3x8x8", "conv 8x4x4"):
        backend.run(tmp_path / "m", label)
    expected = "12.5 ms (median; 0.0125 sec), from 'P50 Latency is 0.0125 sec'"
    assert shown == [f"first sample of the command, for conv 3x8x8: {expected}"]


def test_a_failure_names_the_operator(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    backend = CommandBackend(command="true {model}; echo 0.00 ms", retries=0)
    with pytest.raises(RunError) as error:
        measure_table(tiny_spec, backend, calibration_networks=0, protocol=ONCE)
    assert any(f"failed in one try for {operator}: " in str(error.value) for operator in tiny_spec.distinct_operators())
    assert "not a positive latency: the resolution of the tool may be too coarse" in str(error.value)


def test_threads_without_a_placeholder_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for line in ("run_a {model}", "run_a {model}", "run_b {model} {threads}"):
        CommandBackend(command=line, threads=3)
    CommandBackend(command="run_c {model}", batch=8)  # the ONNX file has the batch
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "threads 3 has no effect on the command, which has no {threads}" in said[0]


def test_the_tool_goes_to_the_measuring_process_and_into_the_table(
    tiny_spec: SpaceSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = "echo $(wc -c < {model}) | sed 's/.*/Inference timings in us: Init: 5, Inference (avg): &/'"
    target = Target.parse("phone", {"backend": "command", "command": line, "tool": "benchmark_model"}, tmp_path)
    backend = target.make_backend()
    assert isinstance(backend, CommandBackend)
    assert make_backend(**backend.settings).settings == backend.settings
    with caplog.at_level("INFO", logger="nni_proxyless"):
        table = measure_table_isolated(tiny_spec, backend, calibration_networks=0, protocol=ONCE)
    table.save(tmp_path / "t.yml")
    assert LatencyTable.load(tmp_path / "t.yml").tool == "benchmark_model"
    assert "--tool benchmark_model" in error_of(table)
    notes = [record.getMessage() for record in caplog.records if "first sample" in record.getMessage()]
    assert len(notes) == 1
    assert "us), from 'Inference timings in us: Init: 5, Inference (avg): " in notes[0]


def error_of(table: LatencyTable) -> str:
    with pytest.raises(InputError) as error:
        table_backend(table)
    return str(error.value)


def test_pattern_and_unit(tmp_path: Path) -> None:
    said = "echo 'Inference timings in us: Init: 5, Inference (avg): 4003.2'; echo done 7"
    backend = command(said, pattern=r"Inference \(avg\): ([\d.]+)", unit="us")
    assert backend.run(tmp_path / "m") == pytest.approx(4.0032)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("exit 3", "exit code 3; it said: nothing"),
        ("echo no device >&2; exit 1", "exit code 1; it said: no device"),
        ("true", "it printed nothing; it must print the latency in milliseconds"),
        ("echo fast", "in its last line no number that may be the latency .*; the last line was: fast"),
        ("echo -3", "'-3 ms', which is not a positive latency: the resolution of the tool may be too coarse"),
        ("echo 0.0", "'0.0 ms', which is not a positive latency: the resolution of the tool may be too coarse"),
        ("echo nan", "in its last line no number"),
        ("echo 1e999", "'1e999 ms', which is not a positive latency"),
        ("echo v1.2.3", "in its last line no number"),
        ("echo 80 FPS", "in its last line no number"),
        ("echo '12 ms, then 13 ms'", r"2 numbers that may be the latency: '12 ms' in '12 ms, then 13 ms', '13 ms'.*"),
    ],
)
def test_what_goes_wrong_is_said(said: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message) as error:
        command(said).run(tmp_path / "m")
    assert "The command was: true" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("said", "pattern", "message"),
    [
        ("echo 12.5", "([0-9.]*)$", None),
        ("echo", "([0-9.]*)$", "it printed nothing"),
        ("echo 80.0 FPS", "([0-9.]+) FPS", "what is next to it is not a unit of time"),
        ("echo '9.75 (MB)'", "([0-9.]+)", "what is next to it is not a unit of time"),
        ("echo 'fps: 80'", "fps: ([0-9.]+)", "'80' without a unit beside it, and 'fps:' stands before it: set unit"),
        ("echo '2 min'", "([0-9]+)", "'2' without a unit beside it, and 'min' stands after it: set unit"),
        ("echo 'time (us)'; echo 12500", "([0-9]+)", "'12500' without .* the output names the unit us elsewhere"),
        # A part of a number is no latency: 12.5 is neither 12 nor 5, and 1.2e-02 is not 1.2.
        ("echo 'took 12.5 ms'", "took ([0-9]+)", "found '12', which is a part of the number '12.5': let the group"),
        ("echo '12.5 ms'", "([0-9]+) ms", "found '5', which is a part of the number '12.5'"),
        ("echo 'took 12.5 ms'", ".*([0-9.]+) ms", "found '5', which is a part of the number '12.5'"),
        ("echo 'took 1.2e-02 s'", "took ([0-9.]+)", "found '1.2', which is a part of the number '1.2e-02'"),
        ("echo 'took 1,234.5 ms'", "took ([0-9.]+)", "found '1', which is a part of the number '1,234.5'"),
        ("echo 'took 12,5 ms'", "took ([0-9]+)", "found '12', which is a part of the number '12,5'"),
        ("echo 'net,12.5,3.25,99'", "net,([0-9.]+)", None),
        ("echo 'net,12.5,325'", "net,([0-9.]+),", None),
        ("echo '0m0.0125s'", "m([0-9.]+)", None),
        ("echo 'init_us: 300, load 3 s, latency 12.5'", "latency ([0-9.]+)", None),
    ],
)
def test_patterns_that_find_nothing_or_no_time(said: str, pattern: str, message: str | None, tmp_path: Path) -> None:
    backend = command(said, pattern=pattern)
    if message is None:
        assert backend.run(tmp_path / "m") == 12.5
        return
    with pytest.raises(RunError, match=message):
        backend.run(tmp_path / "m")


def test_a_command_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    start = time.monotonic()
    with pytest.raises(RunError, match=r"no answer within timeout_s = 0.5 seconds"):
        command(f"(sleep 3; touch {mark}) & sleep 60; echo 1", timeout_s=0.5).run(tmp_path / "m")
    assert time.monotonic() - start < 30
    time.sleep(3.2)
    assert not mark.exists()


def test_a_failed_run_is_tried_again(tmp_path: Path) -> None:
    mark = tmp_path / "tried"
    said = f"if [ -e {mark} ]; then echo 5; else touch {mark}; exit 1; fi"
    assert command(said, retries=1).run(tmp_path / "m") == 5.0
    with pytest.raises(RunError, match="failed in 2 tries"):
        command("exit 1", retries=1).run(tmp_path / "m")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"command": "adb shell bench"}, r"needs a command with \{model\} in it"),
        ({"command": None}, "needs a command"),
        ({"command": "x {model}", "unit": "min"}, "unit must be one of ns, us, ms, s, got 'min'"),
        ({"command": "x {model}", "timeout_s": 0}, "timeout_s must be a positive number"),
        ({"command": "x {model}", "retries": -1}, "retries must be a whole number from 0"),
        ({"command": "x {model}", "pattern": "("}, "is not a regular expression"),
        ({"command": "x {model}", "pattern": r"\d+"}, "must have one group"),
        ({"command": "x {model}", "colour": "red"}, "unknown setting 'colour'"),
        (
            {"command": "x {model}", "tool": "trtexek"},
            "backend command: unknown tool 'trtexek'; did you mean 'trtexec'",
        ),
        (
            {"command": "x {model}", "tool": "trtexec", "pattern": "(x)"},
            "tool 'trtexec' already finds .* remove tool or pattern",
        ),
        (
            {"command": "x {model}", "tool": "trtexec", "unit": "us"},
            "tool 'trtexec' already finds .* remove tool or unit 'us'",
        ),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_backend("command", **settings)


def fake_device(folder: Path) -> Path:
    """Write a program that prints 1 µs per byte of a model file as its latency, but in every seventh run 3 µs."""
    program = folder / "device.sh"
    program.write_text(
        "#!/bin/sh\n"
        f"echo x >> {folder}/calls\n"
        f"n=$(wc -l < {folder}/calls)\n"
        'b=$(wc -c < "$1")\n'
        'if [ $((n % 7)) -eq 0 ]; then echo "$((b * 3))"; else echo "$b"; fi |'
        " awk '{printf \"took %.3f ms\\n\", $1 / 1000}'\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    return program


def test_a_noisy_device_is_measured(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    from nni_proxyless.network.onnx_file import export_onnx

    backend = CommandBackend(command=f"{fake_device(tmp_path)} {{model}}", device="fake phone")
    protocol = Protocol(warmup_s=0, settle_s=0, sample_s=0, min_rounds=7, max_rounds=7)
    table = measure_table(tiny_spec, backend, calibration_networks=3, protocol=protocol, network_protocol=protocol)
    assert table.device.name == "fake phone"
    assert table.command == backend.template
    for operator, entry in table.operators.items():
        size = len(export_onnx(operator.build(tiny_spec.norm), operator.input_shape, 1))
        assert entry.cost == pytest.approx(size / 1000, rel=0.02)
    assert table.calibration.mean_relative_error is not None
    assert table.calibration.mean_relative_error < 0.1


def test_an_interrupted_measurement_goes_on_where_it_stopped(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    program, journal = fake_device(tmp_path), tmp_path / "samples"
    flag = tmp_path / "unplugged"
    # The device is unplugged after twelve answers. On the next call, it works again.
    line = f"[ $(cat {tmp_path}/calls 2>/dev/null | wc -l) -eq 12 ] && [ ! -e {flag} ] && touch {flag} && exit 1; "
    backend = CommandBackend(command=f"{line}{program} {{model}}", retries=0)
    settings: dict[str, Any] = {"calibration_networks": 0, "protocol": ONCE, "journal_path": journal}
    with pytest.raises(RunError, match="exit code 1"):
        measure_table(tiny_spec, backend, **settings)
    assert len(journal.read_text().splitlines()) == 1 + 12
    with journal.open("a") as file:
        file.write('["half a li')  # a crash may leave an incomplete line
    table = measure_table(tiny_spec, backend, **settings)
    calls = len((tmp_path / "calls").read_text().splitlines())
    assert calls == len(table.operators) == len(tiny_spec.distinct_operators())
    rows = export_samples([journal], tmp_path / "s.csv").read_text().splitlines()
    assert rows[0] == "process,workload,moment_s,value"
    assert len(rows) == 1 + calls
    # A journal with other settings belongs to another measurement.
    Journal(journal, {"something": "else"}).close()
    assert len(journal.read_text().splitlines()) == 1


def test_a_target_of_a_recipe_is_one_line(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    content = {"backend": "command", "command": f"{fake_device(tmp_path)} {{model}}", "device": "phone"}
    target = Target.parse("phone", content, tmp_path)
    backend = target.make_backend()
    assert isinstance(backend, CommandBackend)
    assert backend.device.name == "phone"
