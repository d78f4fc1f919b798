"""The report of a recorded experiment is complete, and its figures show the results."""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from nni_proxyless import Architecture
from nni_proxyless.errors import InputError
from nni_proxyless.report import find_results, make_report
from nni_proxyless.report import page as page_module
from nni_proxyless.report.colours import css_variables, target_colour
from nni_proxyless.report.course_figures import heat_map
from nni_proxyless.report.drawing import end_with_data
from nni_proxyless.report.figures import accuracy_against_latency
from nni_proxyless.report.headings import heading
from nni_proxyless.report.page import draw
from nni_proxyless.report.render import Drawn
from nni_proxyless.report.results import Results
from nni_proxyless.report.tables import Point, costs, cross_table, front, own_is_fastest, points, predicted_and_measured
from tests.helpers import REPOSITORY, read_csv

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"
TARGETS = ["cpu_onnxruntime", "cpu_torch"]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Copy of the results of the quickstart, of the retraining of both networks, and of an export."""
    return Path(shutil.copytree(RECORDED, tmp_path / "quickstart"))


@pytest.fixture
def results(recorded: Path) -> Results:
    return find_results(str(recorded))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, which takes seconds."""
    monkeypatch.setattr(page_module, "draw", lambda _: Drawn([], "", b""))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Page of the recorded results, with all drawings, in the folder of a copy of them."""
    folder = Path(shutil.copytree(RECORDED, tmp_path_factory.mktemp("report") / "quickstart"))
    return make_report(find_results(str(folder)), measure=False)


class Page(HTMLParser):
    """What a page has: ids, headings, links, addresses that it loads itself, references to ids, texts of drawings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.references: list[str] = re.findall(r"url\(#([^)]+)\)", text)
        self.drawings = 0
        self.drawn: list[str] = []
        self._tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: str(value) for key, value in attrs}
        self._tags.append(tag)
        self.drawings += tag == "svg"
        if "id" in values:
            (self.headings if tag == "h2" else self.ids).append(values["id"])
        address = values.get("href", values.get("src", values.get("xlink:href", "")))
        if address.startswith("#"):
            self.references.append(address[1:])
        elif address:
            (self.links if tag == "a" else self.loaded).append(address)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        if self._tags and self._tags[-1] == "text" and data.strip():
            self.drawn.append(data)


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def test_the_report_is_complete(made: Path, results: Results) -> None:
    page, text = made, made.read_text()
    parsed = Page(text)
    sections = ["accuracy_latency", "architectures", "cross_table", "predicted_measured", "progress", "cost"]
    assert parsed.headings == sections
    assert all(address.startswith("data:") for address in parsed.loaded), "the page needs no other file and no network"
    assert not re.search(r"@import|url\((?!#)|<script|<img|<link(?! rel=\"icon\")", text)
    assert len(parsed.ids) == len(set(parsed.ids)), "the pictures share no ids"
    assert set(parsed.references) <= set(parsed.ids)
    pictures = sorted(path.name for path in page.parent.glob("*.png"))
    assert pictures == sorted(
        ["architectures.png", "accuracy_latency.png", "progress.png", "predicted_measured.png"]
        + [f"probabilities_{target}.png" for target in TARGETS]
    )
    layers = [len({row["layer"] for row in search.probabilities}) for search in results.searches]
    # two targets, two networks, two plots of latencies, three of the course, heat maps, and a legend for each but one
    assert parsed.drawings == 2 + 2 + 1 + 3 + sum(layers) + 3 + len(layers)
    for name in pictures:
        width, height = png_size(page.parent / name)
        assert 400 <= width <= 1400
        assert height >= 300
    assert sorted(path.stem for path in page.parent.glob("*.csv")) == sorted([*sections, "verdict"])
    assert "not read" not in text
    for address in parsed.links:
        assert (page.parent / unquote(address)).exists(), "all links lead to files"
    assert {"verdict.csv", *(f"{key}.csv" for key in sections if key != "progress")} <= set(parsed.links)


def test_pictures_show_the_same_numbers_each_time_and_follow_the_scheme(results: Results) -> None:
    known = points(results, {})
    picture = accuracy_against_latency(known, TARGETS, TARGETS)
    drawn = [draw(picture) for _ in range(2)]
    assert drawn[0] == drawn[1]
    for target, svg in zip(TARGETS, drawn[0].panels, strict=True):
        colour = target_colour(TARGETS, target)
        other = next(target_colour(TARGETS, name) for name in TARGETS if name != target)
        assert svg.count(f"fill: {colour.css}") >= 1
        assert other.css not in svg, "one colour for each target"
        assert f">{target}</text>" in svg
        left = set(re.findall(r"(?<!,)#[0-9a-fA-F]{6}\b", re.sub(r"var\([^)]*\)", "", svg)))
        assert not left, "all colours are variables"
    variables = css_variables(dark=True)
    assert all(f"--{name}:" in variables for name in re.findall(r"var\(--(\w+),", "".join(drawn[0].panels)))


def test_axes_end_with_the_data_and_heat_maps_share_their_epochs(results: Results) -> None:
    import matplotlib.figure

    axes = matplotlib.figure.Figure().subplots()
    axes.plot([2.0, 7.0], [0.31, 0.52])
    end_with_data(axes, [2.0, 7.0], [0.31, 0.52])
    assert axes.spines["bottom"].get_bounds() == (2.0, 7.0)
    assert axes.spines["left"].get_bounds() == (0.31, 0.52)
    assert min(axes.get_xticks()) >= 2.0
    assert max(axes.get_xticks()) <= 7.0
    for search in results.searches:
        picture = heat_map(search, (1, 40), "name")
        assert picture.title.startswith(search.target)
        axes = matplotlib.figure.Figure().subplots()
        picture.panels[0].draw(axes)
        assert axes.get_xlim() == (0.5, 40.5)
        epochs = [int(row["epoch"]) for row in search.probabilities]
        assert axes.get_images()[0].get_extent()[:2] == [min(epochs) - 0.5, max(epochs) + 0.5]


def test_what_is_drawn_is_what_was_found(made: Path, results: Results) -> None:
    drawn = read_csv(made.parent / "architectures.csv")
    for target in TARGETS:
        architecture = Architecture.load(results.folder / target / "architecture.json")
        spec = architecture.require_spec()
        rows = [row for row in drawn if row["target"] == target]
        assert [row["block"] for row in rows] == ["stem", "first", *architecture.layer_labels, "head", "classifier"]
        for row in rows[2:-2]:
            choice = architecture.choices[row["block"]]
            shown = "skip" if row["kind"] == "skip" else f"k{row['kernel']}_e{row['expansion']}"
            assert shown == choice
            assert row["stage"] == row["block"][5]
        operators = [row for row in rows if row["kind"] != "skip"]
        assert [int(row["width"]) for row in operators] == [op.output_shape[0] for op in architecture.operators()]
        assert len(rows) == 4 + len(spec.layers)
    assert any(row["kind"] == "skip" for row in drawn), "the record has a skip, or this shows nothing"


def test_the_cross_table_is_the_tables_sums(results: Results) -> None:
    rows = cross_table(results)
    assert [row["found_for"] for row in rows] == TARGETS
    for row in rows:
        found = Architecture.load(results.folder / row["found_for"] / "architecture.json")
        for target in TARGETS:
            table = results.table(target)
            assert table is not None
            assert row[target] == pytest.approx(table.costs(found.require_spec()).of(found.choices))


def test_the_report_says_so_where_another_network_is_faster() -> None:
    rows = [
        {"found_for": "a", "accuracy": 0.90, "a": 2.0, "b": 3.0},
        {"found_for": "b", "accuracy": 0.91, "a": 1.5, "b": 1.0},
    ]
    first, second = own_is_fastest(rows)
    assert first.startswith("a: another network is faster than its own at about the same accuracy. Its own takes 2 ms")
    assert "that of b (1.5 ms, accuracy 0.9100)" in first
    assert second.startswith("b: its own network is the fastest, or equally fast")
    rows[1]["accuracy"] = 0.88  # the network is now in another accuracy class
    assert own_is_fastest(rows)[0].startswith("a: all others are over 1 percentage point less accurate")
    for row in rows:
        row["accuracy_on"] = "held-out images, with the weights of the supernet"
    (only,) = own_is_fastest(rows)
    assert "too noisy to compare networks" in only


def test_points_and_their_front(results: Results) -> None:
    known = points(results, {})
    assert {(point.target, point.trained) for point in known} == {(t, b) for t in TARGETS for b in (True, False)}
    for point in known:
        found = Architecture.load(results.folder / point.target / "architecture.json")
        assert point.latency_ms == found.measured_latency_ms
    baseline = next(iter(results.trained))
    known = points(
        replace(results, trained=[replace(baseline, name="w", architecture=_baseline())]), {("w", "cpu_torch"): 0.3}
    )
    assert [(p.target, p.latency_ms) for p in known if p.kind == "mobilenet_v2_0.5"] == [("cpu_torch", 0.3)]

    def at(latency: float, accuracy: float) -> Point:
        return Point("t", "k", "n", latency, True, accuracy, "test images", True)

    assert front([at(3, 0.9), at(1, 0.7), at(2, 0.6), at(1, 0.5), at(4, 0.9)]) == [at(1, 0.7), at(3, 0.9)]


def _baseline() -> Architecture:
    return Architecture.mobilenet_v2(0.5)


def test_predictions_costs_and_histories_are_the_records(made: Path, results: Results) -> None:
    rows = predicted_and_measured(results)
    assert {row["what"] for row in rows} >= {"network", "model.onnx"}
    for row in rows:
        assert row["error"] == pytest.approx(row["predicted_latency_ms"] / row["measured_latency_ms"] - 1)
    listed = costs(results)
    assert [row["what"] for row in listed if row["what"].startswith("search")] == [f"search {t}" for t in TARGETS]
    assert all(float(row["seconds"]) > 0 and float(row["peak_memory_mib"]) > 100 for row in listed)
    history = read_csv(made.parent / "progress.csv")
    for target in TARGETS:
        own = read_csv(results.folder / target / "history.csv")
        assert [row["default"] for row in history if row["search"] == target] == [row["default"] for row in own]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("lowest", [1.0, 0.1])
def test_the_temperature_of_probabilities_is_said_if_it_matters(
    lowest: float, results: Results, tmp_path: Path, undrawn: None
) -> None:
    for row, temperature in zip(results.searches[0].history[-3:], (1.0, 0.5, lowest), strict=True):
        row["temperature"] = temperature if lowest < 1 else 1.0
    page = make_report(results, tmp_path, measure=False).read_text()
    assert ("the probabilities at temperature 1." in page) == (lowest < 1)


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ("predicted_latency_ms", "predicted latency (ms)"),
        ("seconds", "time (s)"),
        ("peak_memory_mib", "peak memory (MiB)"),
        ("my_phone", "my_phone (ms)"),  # a target
        ("my_phone <= 40.5", "my_phone ≤ 40.5 ms"),
        ("peak_memory_int8", "peak memory int8 (bytes)"),
        ("peak_memory_int8 <= 65536", "peak memory int8 ≤ 64 KiB"),
        ("parameters <= 250000", "parameters ≤ 250,000"),
        ("weight_steps", "weight steps"),
    ],
)
def test_headings_have_units(column: str, shown: str) -> None:
    assert heading(column, ["my_phone", "seconds_board"]) == shown


def test_a_running_search_is_shown_as_such(recorded: Path, tmp_path: Path) -> None:
    (recorded / "cpu_torch" / "architecture.json").unlink()
    results = find_results(str(recorded))
    page = make_report(results, tmp_path / "report", measure=False)
    text = page.read_text()
    assert "2 searches, 1 of them not finished" in text
    assert "There is no network to draw for cpu_torch." in text
    assert "search cpu_torch (not finished)" in text
    assert "not finished: wait for the search, or start it again to continue it" in text


@pytest.mark.usefixtures("undrawn")
def test_one_file_that_cannot_be_read_is_named_and_the_others_are_shown(recorded: Path, tmp_path: Path) -> None:
    (recorded / "cpu_torch" / "architecture.json").write_text("{")
    page = make_report(find_results(str(recorded)), tmp_path / "report", measure=False)
    text = page.read_text()
    assert re.search(r"not read: .*/cpu_torch/architecture.json cannot be parsed", text)
    assert "its architecture.json cannot be read" in text
    assert "not finished" not in text


def test_an_experiment_by_its_id(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    trials = tmp_path / "home" / "nni-experiments" / "abc123" / "environments" / "local-env" / "trials"
    shutil.copytree(recorded / "cpu_torch", trials / "xYz")
    results = find_results("abc123")
    assert (results.title, [search.name for search in results.searches]) == ("experiment abc123", ["xYz"])
    with pytest.raises(InputError, match="folder nowhere and no NNI experiment of this id; give a folder"):
        find_results("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither searches nor retrained networks"):
        find_results(str(tmp_path / "empty"))


def test_no_write_access_is_one_line(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write the report into .*; choose another folder with --out"):
        make_report(results, tmp_path / "file" / "report", measure=False)


def test_names_are_escaped(results: Results, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    first, second = results.searches
    odd = replace(
        first,
        name=evil,
        recipe={**first.recipe, "strategy": evil},
        probabilities=[{**row, "layer": f"{evil} <!--", "candidate": evil} for row in first.probabilities[:1]],
        history=[{**row, "warnings": evil} for row in first.history],
    )
    text = make_report(
        replace(results, title=evil, searches=[odd, replace(second, probabilities=[])], problems=[evil]),
        tmp_path / "report",
        measure=False,
    ).read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5
    assert "<!--" not in text
    parsed = Page(text)
    assert any(drawn == evil for drawn in parsed.drawn), "a name is drawn as it is"
    assert len(parsed.ids) == len(set(parsed.ids))
