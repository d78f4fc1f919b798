"""The verdict says what was reached: budgets in words, accuracies by the name of their images, and the next command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.cli.commands import make_parser
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.footprint import file_bytes
from nni_proxyless.report import figures, find_results, make_report, page
from nni_proxyless.report.headings import heading
from nni_proxyless.report.kept_budgets import Constraint, Kept, quantity_text
from nni_proxyless.report.render import Drawn
from nni_proxyless.report.results import Front, Results
from nni_proxyless.report.tables import cross_table, own_is_fastest, points
from nni_proxyless.report.verdict import Line, verdict
from tests.helpers import REPOSITORY, read_csv

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy of the recorded results, whose report is not drawn."""
    monkeypatch.setattr(page, "draw", lambda _: Drawn([], "", b""))
    return Path(shutil.copytree(RECORDED, tmp_path / "quick start"))


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def give_budgets(folder: Path, target: str, budget_ms: float | None, **limits: float) -> None:
    """Give the network of a search budgets that it had to keep, whose values are those of the network."""
    recipe = folder / target / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("objective: add_linear", "objective: budget"))
    found = Architecture.load(folder / target / "architecture.json")
    budgets = {name: {"limit": limit, "value": float(getattr(found, name))} for name, limit in limits.items()}
    change(folder / target / "architecture.json", lambda c: c.update(budget_ms=budget_ms, budgets=budgets))


def give_test_accuracy(folder: Path, target: str, top1: float | None) -> None:
    test = None if top1 is None else {"images": 500, "top1": top1}
    change(folder / target / "retrained" / "model_card.json", lambda c: c["results"].update(test=test))


def line_of(results: Results, target: str) -> Line:
    (line,) = (line for line in verdict(results, {}) if line.target == target)
    return line


def rows_of_page(folder: Path) -> list[str]:
    """The text of each body of the verdict's table, without tags."""
    text = make_report(find_results(str(folder)), measure=False).read_text()
    table = text[text.index('<table class="verdict">') : text.index("</table>")]
    bodies = re.findall(r"<tbody.*?</tbody>", table, flags=re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", body).replace("\xa0", " ").split()) for body in bodies]


def test_one_row_for_each_target_with_the_values_of_the_files(recorded: Path) -> None:
    give_test_accuracy(recorded, "cpu_torch", 0.9125)
    exported = recorded / "cpu_torch" / "retrained" / "exported"
    (exported / "model.onnx").write_bytes(b"\0" * 170_000)
    make_report(find_results(str(recorded)), measure=False)
    rows = {row["target"]: row for row in read_csv(recorded / "report" / "verdict.csv")}
    assert list(rows) == ["cpu_onnxruntime", "cpu_torch"]
    for target, row in rows.items():
        found = json.loads((recorded / target / "architecture.json").read_text())
        card = json.loads((recorded / target / "retrained" / "model_card.json").read_text())
        predicted, measured = found["predicted_latency_ms"], found["measured_latency_ms"]
        assert (float(row["predicted_latency_ms"]), float(row["measured_latency_ms"])) == (predicted, measured)
        assert float(row["error"]) == pytest.approx((predicted - measured) / measured)
        assert float(row["held_out_accuracy"]) == card["results"]["validation"]["top1"]
        assert row["network"] == target
    assert (rows["cpu_torch"]["test_accuracy"], rows["cpu_onnxruntime"]["test_accuracy"]) == ("0.9125", "")
    assert (rows["cpu_torch"]["file"], rows["cpu_torch"]["file_bytes"]) == ("model.onnx", "170000")
    assert rows["cpu_onnxruntime"]["file"] == "", "the file that export.json names is not there"
    onnxruntime, torch = rows_of_page(recorded)
    assert "91.25 %" in torch
    assert "held-out" not in torch, "the accuracy that chose the epoch is not beside the test accuracy"
    assert "no test part held-out 99.44 %; it chose the epoch" in onnxruntime
    assert "-2.7 %" in onnxruntime
    assert "model.onnx 166 KiB" in torch


def test_the_verdict_is_the_first_thing_and_warnings_come_next(recorded: Path) -> None:
    warning = "the budget of 1000 ms has no effect"
    for target in ("cpu_torch", "cpu_onnxruntime"):
        change(recorded / target / "architecture.json", lambda c: c.update(warnings=[warning]))
    give_budgets(recorded, "cpu_torch", 0.1)
    text = make_report(find_results(str(recorded)), measure=False).read_text()
    places = [text.index(part) for part in ("<h1>", '<table class="verdict">', 'class="warnings"', "<h2")]
    assert places == sorted(places)
    told = text[places[2] : places[3]]
    assert "2 warnings" in told
    assert "cpu_torch: the network is not within its budgets (NOT kept: cpu_torch 0.4858 of 0.1 ms" in told
    assert f"cpu_onnxruntime, cpu_torch: {warning}" in told, "equal warnings are told once"


def test_warnings_of_tables_are_shown(recorded: Path) -> None:
    path = recorded / "cpu_torch" / "latency_table.yml"
    content = yaml.safe_load(path.read_text())
    content["calibration"]["mean_relative_error"] = 0.4
    path.write_text(yaml.safe_dump(content))
    text = make_report(find_results(str(recorded)), measure=False).read_text()
    assert re.search(r"<li class=\"warning\">cpu_torch: the latency table of vm \(torch\) is bad: ", text)


@pytest.mark.parametrize(
    ("kept", "holds", "text"),
    [
        (Kept(Constraint("phone", 40.0), 38.21, 39.0), True, "kept: phone 38.21 of 40 ms"),
        (Kept(Constraint("phone", 40.0), 38.21), True, "kept according to the table: phone 38.21 of 40 ms"),
        (Kept(Constraint("phone", 40.0), 41.0), False, "NOT kept according to the table: phone 41 of 40 ms"),
        (Kept(Constraint("phone", 40.0), 41.0, 42.0), False, "NOT kept: phone 41 of 40 ms"),
        (
            Kept(Constraint("phone", 40.0), 41.0, 39.0),
            False,
            "NOT kept according to the table, kept when measured: phone 41 of 40 ms, measured 39 ms",
        ),
        (
            Kept(Constraint("phone", 40.0), 41.0, 42.0, hard=False),
            None,
            "reference of the objective: phone 41 of 40 ms",
        ),
        (Kept(Constraint("phone", 40.0), None, 39.0), True, "kept when measured: phone 39 of 40 ms"),
        (
            Kept(Constraint("phone", 40.0), 39.0, 42.0),
            False,
            "kept according to the table, NOT kept when measured: phone 39 of 40 ms, measured 42 ms",
        ),
        (Kept(Constraint("parameters", 250_000), 240_120), True, "kept: parameters 240,120 of 250,000"),
        (Kept(Constraint("peak_memory", 262_144), 300_000), False, "NOT kept: peak_memory 293 of 256 KiB"),
        (Kept(Constraint("file_size", 500), 400), True, "kept: file_size 400 of 500 bytes"),
        (Kept(Constraint("phone", 40.0), None), None, "not known: phone"),
    ],
)
def test_budgets_in_words(kept: Kept, holds: bool | None, text: str) -> None:
    assert (kept.holds, str(kept)) == (holds, text)


def test_limits_that_differ_little_have_columns_of_their_own() -> None:
    labels = [Constraint("parameters", limit).label for limit in (1_234_567, 1_234_568)]
    assert labels == ["parameters <= 1234567", "parameters <= 1234568"]
    assert heading(labels[0], []) == "parameters ≤ 1,234,567"


def test_quantities_have_their_units() -> None:
    assert quantity_text("file_size", 1024 * 1024) == "1 MiB"
    assert quantity_text("multiply_adds", 1_250_000) == "1,250,000"
    assert quantity_text("any target", 0.123456) == "0.1235 ms"


def test_the_next_command_follows_from_what_is_there_and_is_one_of_ours(recorded: Path) -> None:
    target = recorded / "cpu_torch"

    def command() -> list[str]:
        words = shlex.split(line_of(find_results(str(recorded)), "cpu_torch").next_command)
        make_parser().parse_args(words[1:] or ["doctor"])  # ends with an error if there is no such command
        return words

    export = ["nni-proxyless", "export", str(target / "retrained"), "--format", "onnx", "int8"]
    assert command() == export, "export.json names files, but they are not there"
    (target / "retrained" / "exported" / "model.onnx").touch()
    assert command() == ["nni-proxyless", "report", str(recorded), "--baselines"]
    recipe = target / "retrained" / "recipe.yml"
    own = recipe.read_text()
    recipe.write_text(own.replace("data: digits", "data: package.module:function"))
    assert command() == [], "the recipe is none that baselines can have"
    recipe.write_text(own)
    (alone,) = verdict(find_results(str(target / "retrained")), {})
    assert (alone.next_command, alone.note) == ("", "the files are ready"), "baselines need the search"
    shutil.rmtree(target / "retrained" / "exported")
    assert command() == export
    shutil.rmtree(target / "retrained")
    assert command() == ["nni-proxyless", "retrain", str(target)]
    row = rows_of_page(recorded)[1]
    assert "not trained yet" in row
    assert "97.8" not in row, "the accuracy with the supernet's weights is no verdict"
    assert f"next: nni-proxyless retrain &#39;{target}&#39;" in row
    size = re.search(r"about ([\d.]+) KiB as ONNX", row)
    assert size is not None
    assert 166.4 <= float(size[1]) <= 1.02 * 166.4  # the exported file has 166.4, and a forecast is never less
    (target / "architecture.json").unlink()
    assert command() == ["nni-proxyless", "report", str(recorded)]
    assert "not finished" in rows_of_page(recorded)[1]


def test_a_reference_need_not_be_kept(recorded: Path) -> None:
    """With another objective than `budget`, a search may end above its budget, and that is no fault of the network."""
    give_budgets(recorded, "cpu_torch", 0.1)
    results = find_results(str(recorded))
    assert line_of(results, "cpu_torch").budgets_hold is False
    assert "cpu_torch <= 0.1" in cross_table(results)[0]
    recipe = recorded / "cpu_torch" / "recipe.yml"
    for objective, strategy, hard in [
        ("add_linear", "proxyless", False), ("mul_log", "proxyless", False), ("null", "proxyless", True),
        ("add_linear", "gumbel_darts", True),
    ]:  # fmt: skip
        content = yaml.safe_load(recipe.read_text())
        recipe.write_text(yaml.safe_dump({**content, "objective": yaml.safe_load(objective), "strategy": strategy}))
        results = find_results(str(recorded))
        assert line_of(results, "cpu_torch").budgets_hold is (False if hard else None)
        assert ("cpu_torch <= 0.1" in cross_table(results)[0]) == hard
        page = make_report(results, measure=False).read_text()
        assert ("is not within its budgets" in page) == hard
        assert ("reference of the objective" in page) == (not hard)


def test_a_network_that_is_too_slow_when_measured(recorded: Path) -> None:
    """It takes 0.4858 ms by the table and 0.5016 ms when measured."""
    give_budgets(recorded, "cpu_torch", 0.49)
    row = rows_of_page(recorded)[1]
    assert "kept according to the table, NOT kept when measured" in row
    smaller = 0.49 * 0.4857880339424644 / 0.5015841487889479
    assert f"too slow when measured; a search with a budget of {smaller:.4g} ms leaves room" in row
    give_budgets(recorded, "cpu_torch", 0.51)
    assert "too slow" not in rows_of_page(recorded)[1]


@pytest.mark.parametrize(("measured", "told"), [(0.55, True), (0.54, True), (0.53, False), (0.43, True), (0.45, False)])
def test_predictions_that_are_more_than_a_tenth_off(measured: float, told: bool, recorded: Path) -> None:
    """Searches of early versions did not warn of that. If the search did, the warning is told once."""
    change(recorded / "cpu_torch" / "architecture.json", lambda c: c.update(predicted_latency_ms=0.4858))
    change(recorded / "cpu_torch" / "architecture.json", lambda c: c.update(measured_latency_ms=measured))
    for from_search in (False, True):
        text = make_report(find_results(str(recorded)), measure=False).read_text()
        warning = f"the predicted latency of 0.4858 ms differs from the measured {measured:.4g} ms by "
        assert text.count(f">cpu_torch: {warning}") == text.count(warning) == told
        assert ('<td class="number bad"' in text) == told
        own = [f"{warning}{100 * (0.4858 / measured - 1):+.1f} %: the latency table may be wrong, or the machine may "
               "have been busy"] * (told and not from_search)  # fmt: skip
        change(recorded / "cpu_torch" / "architecture.json", lambda c, own=own: c.update(warnings=own))


def test_without_anything_to_compare_nothing_is_the_fastest(recorded: Path) -> None:
    shutil.rmtree(recorded / "cpu_onnxruntime")
    assert own_is_fastest(cross_table(find_results(str(recorded)))) == []
    assert "is the fastest" not in make_report(find_results(str(recorded)), measure=False).read_text()


def test_a_file_that_loses_accuracy_is_named(recorded: Path) -> None:
    """`export --accept-loss` writes such a file, and exports of early versions always did."""
    export = recorded / "cpu_torch" / "retrained" / "exported" / "export.json"
    for agreement, loss, said in [
        (0.96, 0.01, None), (None, None, None), (0.91, None, "agrees with PyTorch on 91.0 % of the images"),
        (0.96, 0.05, "agrees with PyTorch on 96.0 % of the images and loses 5.0 points of accuracy"),
    ]:  # fmt: skip
        values = {"agreement": agreement, "accuracy_loss": loss}
        change(export, lambda c, values=values: c["formats"][0].update(values))  # type: ignore[misc]
        text = make_report(find_results(str(recorded)), measure=False).read_text()
        assert ("so the test accuracy is not that of this file" in text) == (said is not None)
        assert said is None or f"cpu_torch/retrained/exported, model.onnx: the file {said}, so" in text


def test_commands_can_be_pasted_whatever_the_folder_is_called(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recorded.parent)
    for name, shown in [("-x", "./-x"), ("a 'b", "a 'b"), (os.fsdecode(b"c\xff"), None), ("d\ne", None)]:
        shutil.copytree(recorded, name)
        path = make_report(find_results(f"./{name}"), measure=False)
        (row,) = (row for row in read_csv(path.parent / "verdict.csv") if row["target"] == "cpu_torch")
        words = shlex.split(row["next_command"])
        assert words[2:3] == ([] if shown is None else [f"{shown}/cpu_torch/retrained"])
        make_parser().parse_args(words[1:] or ["doctor"])


def test_the_expected_size_is_the_sum_of_the_operators(recorded: Path) -> None:
    line = line_of(find_results(str(recorded)), "cpu_torch")
    found = Architecture.load(recorded / "cpu_torch" / "architecture.json")
    assert line.expected_bytes == sum(file_bytes(operator) for operator in found.operators())


def test_a_retraining_without_its_search_has_a_row(recorded: Path) -> None:
    (line,) = verdict(find_results(str(recorded / "cpu_torch" / "retrained")), {})
    assert (line.target, line.error) == ("cpu_torch", pytest.approx(0.48578803 / 0.50158415 - 1))


def test_several_budgets_of_a_target_have_a_row_each(recorded: Path) -> None:
    shutil.copytree(recorded / "cpu_torch", recorded / "faster")
    recipe = recorded / "faster" / "recipe.yml"
    recipe.write_text(recipe.read_text().replace("budget_ms: null", "budget_ms: 0.4"))
    lines = [line for line in verdict(find_results(str(recorded)), {}) if line.target == "cpu_torch"]
    assert [line.name for line in lines] == ["cpu_torch", "faster"]


def test_the_test_accuracy_chooses_no_network(recorded: Path) -> None:
    """Of two searches with the same budgets, the one with the better held-out accuracy is shown."""
    shutil.copytree(recorded / "cpu_torch", recorded / "other")
    network = recorded / "other" / "architecture.json"
    for path in (network, recorded / "other" / "retrained" / "architecture.json"):
        change(path, lambda c: c["choices"].update(stage1_layer1="k3_e3"))
        change(path, lambda c: c.update(parameters=None, multiply_adds=None))
    card = recorded / "other" / "retrained" / "model_card.json"
    change(card, lambda c: c["results"].update(validation={"top1": 0.5}, test={"top1": 0.99, "images": 9}))
    give_test_accuracy(recorded, "cpu_torch", 0.4)
    assert line_of(find_results(str(recorded)), "cpu_torch").name == "cpu_torch"


def test_every_network_is_shown_under_every_constraint(recorded: Path) -> None:
    give_budgets(recorded, "cpu_torch", 0.487, parameters=41_210)
    give_budgets(recorded, "cpu_onnxruntime", 0.0335, multiply_adds=1_150_000)
    rows = {row["found_for"]: row for row in cross_table(find_results(str(recorded)))}
    labels = ["cpu_onnxruntime <= 0.0335", "cpu_torch <= 0.487", "multiply_adds <= 1150000", "parameters <= 41210"]
    assert [column for column in rows["cpu_torch"] if " <= " in column] == labels
    for target, row in rows.items():
        found = Architecture.load(recorded / target / "architecture.json")
        latencies = {
            name: find_results(str(recorded)).table(name).costs(found.require_spec()).of(found.choices)  # type: ignore[union-attr]
            for name in ("cpu_onnxruntime", "cpu_torch")
        }
        expected = [
            latencies["cpu_onnxruntime"] <= 0.0335,
            latencies["cpu_torch"] <= 0.487,
            found.multiply_adds <= 1_150_000,
            found.parameters <= 41_210,
        ]
        assert [row[label] for label in labels] == ["kept" if holds else "NOT kept" for holds in expected]
        assert (row["parameters"], row["multiply_adds"]) == (found.parameters, found.multiply_adds)
    assert rows["cpu_torch"]["parameters <= 41210"] == "kept", "a limit that is met exactly is kept"
    assert rows["cpu_onnxruntime"]["parameters <= 41210"] == "NOT kept"
    text = make_report(find_results(str(recorded)), measure=False).read_text()
    assert '<td class="text bad">NOT kept</td>' in text
    assert "parameters ≤ 41,210" in text


def test_a_device_without_a_search_has_its_name_and_unit_in_the_cross_table(recorded: Path) -> None:
    shutil.rmtree(recorded / "cpu_onnxruntime")
    found = Architecture.load(recorded / "cpu_torch" / "architecture.json")
    budgets = {"my_phone": {"limit": 40.0, "value": 30.0}, "peak_memory": {"limit": 65536, "value": 60000}}
    replace(found, budgets=budgets).save(recorded / "cpu_torch" / "architecture.json")
    text = make_report(find_results(str(recorded)), measure=False).read_text()
    for shown in ("my_phone (ms)", "my_phone ≤ 40 ms", "peak memory (bytes)", "peak memory ≤ 64 KiB"):
        assert shown in text
    assert "my phone" not in text


def test_compared_accuracies_are_of_one_kind(recorded: Path) -> None:
    def kind_and_values() -> tuple[str, list[float]]:
        rows = cross_table(find_results(str(recorded)))
        return rows[0]["accuracy_on"], [row["accuracy"] for row in rows]

    give_test_accuracy(recorded, "cpu_torch", 0.91)
    assert kind_and_values() == ("held-out images", [0.9944289693593314, 1.0])
    give_test_accuracy(recorded, "cpu_onnxruntime", 0.92)
    assert kind_and_values() == ("test images", [0.92, 0.91])
    shutil.rmtree(recorded / "cpu_torch" / "retrained")
    kind, values = kind_and_values()
    assert kind == "held-out images, with the weights of the supernet"
    assert values[1] == json.loads((recorded / "cpu_torch" / "architecture.json").read_text())["metrics"]["default"]


def test_points_name_the_images_of_their_accuracy(recorded: Path) -> None:
    give_test_accuracy(recorded, "cpu_torch", 0.91)
    found = {(p.target, p.trained): (p.accuracy, p.accuracy_on) for p in points(find_results(str(recorded)), {})}
    assert found["cpu_torch", True] == (0.91, "test images")
    assert found["cpu_onnxruntime", True] == (0.9944289693593314, "held-out images")
    assert found["cpu_torch", False] == (pytest.approx(0.97771588), "held-out images")


def test_networks_of_other_budgets_of_the_same_target_are_no_rivals() -> None:
    rows = [
        {"found_for": "a", "search": "slow", "accuracy": 0.90, "a": 2.0},
        {"found_for": "a", "search": "fast", "accuracy": 0.90, "a": 1.0},
        {"found_for": "", "search": "baselines/random_1", "accuracy": 0.95, "a": 1.5},
    ]
    slow, fast = own_is_fastest(rows)
    assert slow.startswith("a: another network is faster than its own (slow)")
    rows[2]["accuracy"] = 0.88
    assert own_is_fastest(rows)[0] == (
        "a: all others are over 1 percentage point less accurate than its own network (slow), which takes 2 ms at "
        "accuracy 0.9000."
    )
    assert "Faster: that of baselines/random_1 (1.5 ms" in slow
    assert fast.startswith("a: its own network (fast) is the fastest")


@pytest.mark.parametrize("test", [5, {"top1": "0.9"}, {}, {"top1": None}])
def test_a_damaged_test_accuracy_is_named(test: Any, recorded: Path) -> None:
    change(recorded / "cpu_torch" / "retrained" / "model_card.json", lambda c: c["results"].update(test=test))
    (problem,) = find_results(str(recorded)).problems
    assert "'results', 'test', 'top1' must be an accuracy" in problem


def test_fronts_are_read_and_drawn(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (recorded / "front.csv").write_text(
        "table,latency_ms,log_likelihood,layer\ncpu_torch,1,-5,k3_e3\ncpu_torch,2,-3,skip\n"
    )
    (recorded / "cpu_torch" / "front_3.csv").write_text("phone,parameters,likelihood,layer\n1,10,-5,a\n2,20,-3,b\n")
    (recorded / "front_bad.csv").write_text("a,b\nx,1\n")
    results = find_results(str(recorded))
    assert [(one.name, one.quantities) for one in results.fronts] == [
        ("cpu_torch/front_3.csv", ("phone", "parameters", "likelihood")),
        ("front.csv", ("latency_ms", "log_likelihood")),
    ]
    assert results.fronts[1].rows[0] == {"table": "cpu_torch", "latency_ms": 1.0, "log_likelihood": -5.0}
    assert any("front_bad.csv: a front must have at least two columns of numbers" in one for one in results.problems)
    monkeypatch.undo()
    parts = page.sections(results, {}, recorded / "report")
    pictures = next(part for part in parts if part.key == "fronts").pictures
    assert [[panel.label for panel in picture.panels] for picture in pictures] == [
        ["likelihood against phone", "likelihood against parameters"],
        ["log_likelihood against latency_ms"],
    ]
    drawn = page.draw(pictures[1])
    assert ">latency [ms]</text>" in drawn.panels[0]
    assert pictures[1].source == [("front.csv", "../front.csv")]
    front = Front("front", recorded, ("likelihood", "cpu_torch", "peak_memory"), [
        {"likelihood": -5.0, "cpu_torch": 1.0, "peak_memory": 10.0},
        {"likelihood": -3.0, "cpu_torch": 2.0, "peak_memory": 20.0},
    ])  # fmt: skip
    (picture,) = figures.fronts([front], ["cpu_torch"])
    panels = page.draw(picture).panels
    assert ">cpu_torch [ms]</text>" in panels[0]
    assert ">peak memory [bytes]</text>" in panels[1]
