"""Reading a latency without a tool's name: numbers, units, what is no latency, and round trips through many formats."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_proxyless.errors import RunError
from nni_proxyless.latency.tools import read_plain
from nni_proxyless.latency.tools.candidates import unit_beside
from nni_proxyless.latency.tools.labels import foreign_unit
from nni_proxyless.latency.tools.quantity import AmbiguousNumberError, milliseconds_per, to_number

UNITS = {
    "ns": 1e6, "nanoseconds": 1e6, "us": 1e3, "µs": 1e3, "μs": 1e3, "usec": 1e3, "microseconds": 1e3, "ms": 1.0,
    "msec": 1.0, "MS": 1.0, "milliseconds": 1.0, "s": 1e-3, "sec": 1e-3, "seconds": 1e-3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12.0), ("12.5", 12.5), (".5", 0.5), ("-3", -3.0), ("1.5e+03", 1500.0), ("1.5E-3", 0.0015),
        ("12,5", 12.5), ("0,125", 0.125), ("1,2345", 1.2345), ("1234,567", 1234.567),
        ("1,234.5", 1234.5), ("1.234,5", 1234.5), ("1,234,567", 1234567.0), ("1.234.567", 1234567.0),
        ("1'234.5", 1234.5), ("1\u2019234.5", 1234.5), ("\u22123", -3.0),
        ("1_234.5", 1234.5), ("1\u202f234,5", 1234.5), ("1\u00a0234\u00a0567", 1234567.0),
    ],
)  # fmt: skip
def test_a_printed_number_is_converted(text: str, value: float) -> None:
    assert to_number(text) == value


@pytest.mark.parametrize("text", ["1,234", "12,500", "-1,234", "123,456e1"])
def test_a_comma_before_three_digits_is_ambiguous(text: str) -> None:
    with pytest.raises(AmbiguousNumberError, match="decimal point"):
        to_number(text)


@pytest.mark.parametrize("text", ["1.2.3", "1,3,224,224", "12,34,5", "1.234,567,8", "12'34", "", "x", "1,2.3,4"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        to_number(text)


@pytest.mark.parametrize(("unit", "per_millisecond"), UNITS.items())
def test_units(unit: str, per_millisecond: float) -> None:
    assert milliseconds_per(unit) == pytest.approx(1 / per_millisecond, rel=1e-12)
    assert read_plain(f"latency: 12500 {unit}").milliseconds == pytest.approx(12500 / per_millisecond)


@pytest.mark.parametrize("unit", ["min", "S", "MB", "m", "h", "mss", "ms2"])
def test_other_letters_are_no_time_unit(unit: str) -> None:
    with pytest.raises(KeyError):
        milliseconds_per(unit)
    assert unit_beside(f"12.5 {unit}", 0, 4) is None


@pytest.mark.parametrize(
    "line",
    [
        "12.5ms", "12.5 [ms]", "12.5 (ms)", "latency (ms): 12.5", "latency [ms] 12.5", "latency_ms=12.5", "ms: 12.5",
        '{"latency_ms":12.5}', "{'ms': 12.5}", "latency in ms: 12.5", "| latency | 12.5 ms |",
        "| latency | 12.5 | ms |",
        "12.5 +/- 0.3 ms", "12.5 ms +- 0.3 ms", "12.5 (+/- 0.3) ms",
        "(12.5 ± 0.3) ms", "Latency = 12.5 ms/image", "<b>12.5</b> (12.5 ms)",
        "Iteration 3/10 at 14:59:38, 80 % of 1 GB: 12.5 ms", "mobilenet-v2-1.0.onnx 12.5 ms",
        "batch 4, 8 threads: 12.5 ms",
        "10:59 12.5 ms", "[  12.123456] 12.5 ms", "sdk 34, android 14.0.1: 12.5 ms", "12.5 ms (IQR 0.3 ms)",
        "conv 3x3, 24x56x56: 12.5 ms", "192.168.1.10:5555 12.5 ms", "80 fps = 12.5 ms", "speed: 12.5ms.",
        "x=-1 12.5 ms", "Average inference time cost total: 12.5 ms", "mean of 50 runs in total: 12.5 ms",
    ],
)  # fmt: skip
def test_ways_to_print_a_latency(line: str) -> None:
    read = read_plain(f"INFO start 3\n{line}\nend\n")
    assert read.milliseconds == pytest.approx(12.5)
    assert read.line in " ".join(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "9.75 MB", "9.75 MiB", "80 FPS", "80.0 fps", "80 qps", "80 inf/s", "80 img/s", "80 images/s", "80 samples/sec",
        "80 per second", "images per second: 80", "img/s: 80", "images_per_s: 80", "50 %", "50%", "12.5 GFLOPS", "3 W",
        "14:59:38", "14:59:38.123", "2026-11-29", "11/29/2026", "v1.2", "1.2.3", "resnet50", "P50", "p99", "3/10",
        "100 iterations", "10 runs", "4 threads", "threads: 4", "batch size: 1", "Num runs: [50]", "exit code 0",
        "1x3x224x224", "0x7f", "50 °C", "2.1 GHz", "temperature 45", "mem 512", "5th", "top-1 75.2 %", "nan ms",
        "inf ms", "<1 ms", "≤ 1 ms", "± 0.3 ms", "std: 0.3 ms", "10 it/s", "s", "ms",
    ],
)  # fmt: skip
def test_what_is_no_latency(line: str) -> None:
    with pytest.raises(RunError):
        read_plain(line)
    # Beside a latency, it does not disturb, and is not read instead.
    assert read_plain(f"latency 12.5 ms\n{line}\n").milliseconds == 12.5
    assert read_plain(f"{line}\nlatency 12.5 ms\n").milliseconds == 12.5


@pytest.mark.parametrize(
    ("output", "unit", "milliseconds"),
    [
        ("12.5", None, 12.5),
        ("12500", "us", 12.5),
        ("0.0125", "s", 12.5),
        ("12500000", "ns", 12.5),
        ("warming up 99\nmodel2 took 12.5", None, 12.5),
        ("12.1\n12.3\n12.5\n", None, 12.5),
        ("latency: 12.5\n\n\n", None, 12.5),
        # A unit beside the number wins over the setting, which is for numbers without one.
        ("12.5 ms", "us", 12.5),
        ("latency_us=12500", "s", 12.5),
    ],
)
def test_a_bare_number_has_the_unit_of_the_setting(output: str, unit: str | None, milliseconds: float) -> None:
    assert read_plain(output, unit=unit).milliseconds == pytest.approx(milliseconds)


@pytest.mark.parametrize(
    ("output", "listed"),
    [
        ("12 ms\n13 ms", "2 numbers that may be the latency: '12 ms' in '12 ms', '13 ms' in '13 ms'"),
        ("12.1 12.3", "2 numbers that may be the latency: '12.1' in"),
        (
            "load 3 ms\nlatency 12.5",
            "2 numbers that may be the latency: '3 ms' in 'load 3 ms', '12.5' in 'latency 12.5'",
        ),
        ("\n".join(f"run: {n} ms" for n in range(1, 10)), "9 numbers that may be the latency: .* and 3 more"),
        ("1 s\n1000.4 ms", "2 numbers that may be the latency"),  # one time in two units stands on one line
    ],
)
def test_several_latencies_are_listed(output: str, listed: str) -> None:
    with pytest.raises(RunError, match=listed) as error:
        read_plain(output)
    assert "set tool to the name of the program, or set pattern" in str(error.value)


@pytest.mark.parametrize(
    "output",
    ["0.0125 s (12.5 ms)", "12.5 ms = 12500 us", "latency 12.5 ms\nagain: latency 12.5 ms", "13 ms, exactly 12.5 ms"],
)
def test_one_time_that_is_printed_twice(output: str) -> None:
    if output.startswith("13"):
        with pytest.raises(RunError, match="2 numbers"):
            read_plain(output)
    else:
        assert read_plain(output).milliseconds == pytest.approx(12.5)


@pytest.mark.parametrize(
    "output",
    [
        "Total: 3.2 s",
        "Session creation time cost: 0.5 s",
        "model loaded in 120 ms",
        "50 runs took 3.2 s",
        "first run: 90 ms",
    ],
)
def test_a_time_that_is_not_of_one_run_is_refused(output: str) -> None:
    with pytest.raises(RunError, match="does not seem to be the time of one run"):
        read_plain(output)


@pytest.mark.parametrize(
    "output", ["1 min 3 s", "2 min", "took 0.5 hours", "5000 cycles", "12.5 milisec.", "75 points"]
)
def test_a_unit_that_is_not_known_is_refused(output: str) -> None:
    with pytest.raises(RunError, match=r"it printed one number, .* but its unit is not recognised"):
        read_plain(output)


def test_times_of_the_shell_are_not_read() -> None:
    with pytest.raises(RunError):
        read_plain("real 1m3.5s")


@pytest.mark.parametrize(
    ("output", "milliseconds"),
    [
        ("latency: 12.5\nfinished in 3 s", None),
        ("Average: 12.5\nvalue 3", None),
        ("mean 12.5 min 10.1", None),
        ("latency: 12.1\nlatency: 12.5", 12.5),
        ("latency: 12.5 ms\nthreads: 4", 12.5),
        ("12.5 on cpu", 12.5),
    ],
)
def test_a_named_latency_without_a_unit_is_not_passed_over(output: str, milliseconds: float | None) -> None:
    if milliseconds is None:
        with pytest.raises(RunError, match="2 numbers that may be the latency"):
            read_plain(output)
    else:
        assert read_plain(output).milliseconds == milliseconds


def test_stderr_is_read_if_stdout_has_no_latency() -> None:
    assert read_plain("12.5\n", "init 3 ms\n").milliseconds == 12.5
    assert read_plain("", "latency 12.5 ms\n").milliseconds == 12.5
    assert read_plain("80 FPS\n", "latency 12.5 ms\n").milliseconds == 12.5
    with pytest.raises(RunError, match="the last line was: 80 FPS"):
        read_plain("80 FPS\n", "done\n")


def test_the_reading_says_what_was_read() -> None:
    read = read_plain("P50 Latency is 0.0125 sec")
    assert str(read) == "12.5 ms (median; 0.0125 sec), from 'P50 Latency is 0.0125 sec'"
    assert "taken as us" in str(read_plain("12500", unit="us"))


def test_an_output_of_a_known_tool_is_never_read_differently() -> None:
    with pytest.raises(RunError, match=r"as the output of ai_hub this is 15.838 ms .*\(set tool: ai_hub\)"):
        read_plain('{"execution_summary": {"estimated_inference_time": 15838}}')


def test_a_very_long_line_of_json_is_refused_with_advice() -> None:
    layers = [{"name": f"l{i}", "execution_time": i} for i in range(2000)]
    profile = {"execution_summary": {"all_inference_times": [1000, 1100, 1200]}, "execution_detail": layers}
    with pytest.raises(RunError, match="set tool: ai_hub") as error:
        read_plain(json.dumps(profile))
    assert len(str(error.value)) < 3000


def german(text: str) -> str:
    return text.translate(str.maketrans({",": ".", ".": ","}))


def render(milliseconds: float, unit: str, digits: int, style: str) -> tuple[str, float]:
    """Print a latency, and return what the text means in milliseconds."""
    value = milliseconds * UNITS[unit]
    plain = f"{value:.{digits}f}"
    text = {"plain": plain, "exponent": f"{value:.{digits}e}", "thousands": f"{value:,.{digits}f}"}.get(style)
    text = text or german(f"{value:,.{digits}f}" if style == "german thousands" else plain)
    return text, float(f"{value:.{digits}e}" if style == "exponent" else plain) / UNITS[unit]


LINES = st.sampled_from(
    [
        "loading model.onnx", "[14:59:38] I connected", "memory: 9.75 MB", "80.0 FPS", "2026-11-29 run 3", "",
        "done in 3 steps",
        "100%|███| 50/50 [00:05<00:00,  9.83it/s]", "WARNING: 4 threads on 8 cores", "SoC 1.8 GHz, 45 °C", "P50 P99",
    ]
)  # fmt: skip
LABELS = st.sampled_from(
    ["", "latency: ", "avg=", "[INFO] took ", '"time": ', "resnet50 (1,3,8,8) | ", "\x1b[32mlatency\x1b[0m "]
)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    milliseconds=st.floats(0.001, 5000),
    unit=st.sampled_from(list(UNITS)),
    digits=st.sampled_from([1, 2, 4, 6]),
    style=st.sampled_from(["plain", "exponent", "thousands", "german", "german thousands"]),
    space=st.sampled_from(["", " ", "  ", " ["]),
    label=LABELS,
    before=st.lists(LINES, max_size=3),
    after=st.lists(LINES, max_size=3),
)
def test_a_latency_survives_printing_and_reading(
    milliseconds: float, unit: str, digits: int, style: str, space: str, label: str, before: list[str], after: list[str]
) -> None:
    text, meant = render(milliseconds, unit, digits, style)
    line = f"{label}{text}{space}{unit}{']' if '[' in space else ''}"
    read = read_plain("\n".join([*before, line, *after]))
    assert read.milliseconds == pytest.approx(meant, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(value=st.floats(0.001, 1e6), unit=st.sampled_from(["ns", "us", "ms", "s"]), before=st.lists(LINES, max_size=3))
def test_a_bare_number_survives_printing_and_reading(value: float, unit: str, before: list[str]) -> None:
    output = "\n".join([*before, f"{value:.4f}"])
    assert read_plain(output, unit=unit).milliseconds == pytest.approx(float(f"{value:.4f}") * milliseconds_per(unit))


@settings(deadline=None, max_examples=200, derandomize=True)
@given(first=st.integers(1, 999), second=st.integers(1, 999), before=st.lists(LINES, max_size=2))
def test_two_different_latencies_are_never_read_as_one(first: int, second: int, before: list[str]) -> None:
    output = "\n".join([*before, f"a: {first} ms", f"b: {second} ms"])
    if first == second:
        assert read_plain(output).milliseconds == first
    else:
        with pytest.raises(RunError, match="2 numbers that may be the latency"):
            read_plain(output)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.text(max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        said = read_plain(text).line
    except RunError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("line", ["Latency: 12 500 us", "12 345.6 us", "took 1 234,5 us", "latency 1 234 567 ns"])
def test_a_space_before_three_digits_is_ambiguous(line: str) -> None:
    with pytest.raises(RunError, match="may separate thousands or two numbers"):
        read_plain(line, "", None)


@pytest.mark.parametrize(
    "line",
    [
        "80.0 (fps)", "Average: 80.0 [FPS]", "FPS (avg)= 80.0", "fps(mean): 80.0", "FPS mean 80.0",
        "Throughput (avg) 80.0", "9.75 (MB)", "50 (%)", "RAM: 9.75", "GFLOPS 3.2",
    ],
)  # fmt: skip
def test_brackets_and_statistics_do_not_hide_what_is_no_latency(line: str) -> None:
    with pytest.raises(RunError):
        read_plain(line, "", None)
    assert read_plain(f"12.5 (ms)\n{line}", "", None).milliseconds == 12.5


@pytest.mark.parametrize(
    "output",
    [
        "latency(us)\n12500", "name,latency_us\nmodel,12500", "| a | time [µs] |\n| b | 12500 |", "avg us 12500",
        '{"unit":"us","latency":12500}', '{"time_unit":"us","real_time":12500}', "<latency unit='us'>12500</latency>",
        "Time (us): mean 12500", "Times in microseconds\n12500", "All times are in seconds\nlatency 12500",
        "latencyUs: 12500", "elapsedNanos: 12500", '{"latencySeconds": 12500}', "unit is usec\n12500",
    ],
)  # fmt: skip
def test_a_bare_number_is_not_taken_as_milliseconds_if_another_unit_is_named(output: str) -> None:
    with pytest.raises(RunError, match=r"'12500' in .* without a unit beside it, and names the unit .*: set unit"):
        read_plain(output)
    assert read_plain(output, unit="us").milliseconds == 12.5


@pytest.mark.parametrize(
    "output",
    [
        "latency (ms)\n12.5",
        "wait for us\n12.5",
        "warm-up took 3 s\n",
        "init_us: 300\n",
        "the second run\n12.5",
        "in sum\n12.5",
    ],
)
def test_units_of_other_numbers_and_other_words_do_not_disturb(output: str) -> None:
    assert foreign_unit(output) is None


@pytest.mark.parametrize("output", ['{"latency": "12500 \\u00b5s"}', "'12500 \\xb5s'", '"12500 \\u03bcs"'])
def test_a_micro_sign_that_json_or_python_escapes_is_read(output: str) -> None:
    assert read_plain(output).milliseconds == 12.5


@pytest.mark.parametrize("output", ["12500 \ufffds", "12500 ?s", "12500 ??s", "12500 \u00a6\u00ccs", "12500 \\xe6s"])
def test_a_micro_sign_that_was_lost_is_no_millisecond(output: str) -> None:
    with pytest.raises(RunError, match="its unit is not recognised"):
        read_plain(output)


@pytest.mark.parametrize(
    "output",
    [
        "0.5 s / 40 runs", "Elapsed 625 ms over 50 runs", "Elapsed: 625 ms, 50 iterations", "625 ms / 50",
        "Executed 50 inferences: 625 ms", "12.5 s/epoch", "0.2 ms per layer", "11 ~ 12.5 ms",
    ],
)  # fmt: skip
def test_a_time_of_many_runs_or_of_a_part_is_refused(output: str) -> None:
    with pytest.raises(RunError, match=r"does not seem to be the time of one run|2 numbers that may be"):
        read_plain(output)


@pytest.mark.parametrize(
    "output",
    [
        "Average of 50 runs took 12.5 ms",
        "50 iterations done, 12.5 ms each",
        "ran 50 times, mean 12.5 ms",
        "12.5 ms/iter",
    ],
)
def test_a_mean_of_many_runs_is_read(output: str) -> None:
    assert read_plain(output).milliseconds == 12.5


@pytest.mark.parametrize("output", ["real 0.31\nuser 0.25\nsys 0.02", "cycles: 12500", "instructions = 12500"])
def test_times_of_the_processor_and_counts_are_no_latency(output: str) -> None:
    with pytest.raises(RunError, match="no number that may be the latency"):
        read_plain(output)
