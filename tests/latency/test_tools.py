"""The parsers of device tools on outputs of these tools: recorded ones, and ones that were rebuilt from their source.

`tool_outputs/index.csv` has the expected latency of each output, or the reason of its refusal, and where it is from.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_proxyless.errors import InputError, RunError
from nni_proxyless.latency.tools import TOOLS, find_tool, read_plain

OUTPUTS = Path(__file__).parent / "tool_outputs"
with (OUTPUTS / "index.csv").open(encoding="utf-8", newline="") as file:
    CASES = {f"{row['tool']}/{row['case']}": row for row in csv.DictReader(file)}
READ = [name for name, row in CASES.items() if row["milliseconds"]]
REFUSED = [name for name in CASES if name not in READ]
OF_TOOLS = [name for name in READ if not name.startswith("plain/")]


def output(name: str) -> str:
    return (OUTPUTS / f"{name}.txt").read_text(encoding="utf-8")


def parse(tool: str, text: str) -> tuple[float, str, str]:
    read = read_plain(text) if tool == "plain" else TOOLS[tool](text)
    return read.milliseconds, read.statistic, read.line


@pytest.mark.parametrize("name", READ)
def test_an_output_is_read(name: str) -> None:
    expected = CASES[name]
    milliseconds, statistic, _ = parse(expected["tool"], output(name))
    assert milliseconds == pytest.approx(float(expected["milliseconds"]), rel=1e-9)
    assert statistic == expected["statistic"]


@pytest.mark.parametrize("name", REFUSED)
def test_an_output_without_a_clear_latency_is_refused(name: str) -> None:
    with pytest.raises(RunError, match=CASES[name]["refused"]) as error:
        parse(CASES[name]["tool"], output(name))
    assert "\n" not in str(error.value)


def test_the_index_has_every_output_and_every_tool() -> None:
    files = {path.relative_to(OUTPUTS).with_suffix("").as_posix() for path in OUTPUTS.glob("*/*.txt")}
    assert files == set(CASES)
    assert {row["tool"] for row in CASES.values()} == {*TOOLS, "plain"}
    assert len(OF_TOOLS) >= 40
    assert all(row["source"] and bool(row["milliseconds"]) != bool(row["refused"]) for row in CASES.values())


@pytest.mark.parametrize("name", OF_TOOLS)
def test_no_other_tool_reads_something_else_from_an_output(name: str) -> None:
    """A wrong `tool` must be refused; it must never give another number."""
    own = CASES[name]["tool"]
    for tool, parser in TOOLS.items():
        if tool == own:
            continue
        try:
            milliseconds = parser(output(name)).milliseconds
        except RunError:
            continue
        assert (own, tool) == ("litert-benchmark", "benchmark_model")  # both are LiteRT's, with one format
        assert milliseconds == pytest.approx(float(CASES[name]["milliseconds"]), rel=1e-9)


@pytest.mark.parametrize("name", OF_TOOLS)
def test_without_its_name_an_output_is_read_alike_or_refused(name: str) -> None:
    """What a user sees who forgets `tool`: the same number, or an error that names the tool."""
    try:
        milliseconds, advice = read_plain(output(name)).milliseconds, ""
    except RunError as error:
        milliseconds, advice = float(CASES[name]["milliseconds"]), str(error)
    assert milliseconds == pytest.approx(float(CASES[name]["milliseconds"]), rel=1e-9)
    assert not advice or CASES[name]["tool"] in advice


NOISE = st.sampled_from(
    [
        "INFO: loading", "14:59:38 I/adb: connected", "peak memory 9.75 MB", "Throughput: 80.0 FPS", "", "50 % done",
        "WARNING: clock 1804800 khz", "took 3.5 s to push", "warm-up 120 ms",
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", OF_TOOLS)
@settings(deadline=None, max_examples=20, derandomize=True)
@given(before=st.lists(NOISE, max_size=3), after=st.lists(NOISE, max_size=3), windows=st.booleans())
def test_lines_around_the_output_change_nothing(name: str, before: list[str], after: list[str], windows: bool) -> None:
    expected = CASES[name]
    end = "\r\n" if windows else "\n"
    text = end.join([*before, *output(name).splitlines(), *after]) + end
    assert parse(expected["tool"], text)[0] == pytest.approx(float(expected["milliseconds"]), rel=1e-9)


@pytest.mark.parametrize("tool", TOOLS)
@settings(deadline=None, derandomize=True)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tool: str, text: str) -> None:
    try:
        read = TOOLS[tool](text)
    except RunError:
        return
    assert read.line in " ".join(text.split()) or read.line in ("all_inference_times", "estimated_inference_time")


@pytest.mark.parametrize(
    ("given_name", "tool"),
    [
        ("trtexec", "trtexec"), ("benchmark.out", "mnn_benchmark"), ("MNNV2Basic.out", "mnn_v2basic"),
        ("qai_hub", "ai_hub"), ("litert_benchmark", "litert-benchmark"), (" TRTEXEC ", "trtexec"),
    ],
)  # fmt: skip
def test_names_of_the_programs_are_understood(given_name: str, tool: str) -> None:
    assert find_tool(given_name) == tool


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown tool 'trtexek'; did you mean 'trtexec'\?"):
        find_tool("trtexek")
    with pytest.raises(InputError, match="unknown tool '3'"):
        find_tool(3)


def test_every_parser_names_the_source_of_its_format() -> None:
    for parser in TOOLS.values():
        assert "Source" in (parser.__doc__ or "")
