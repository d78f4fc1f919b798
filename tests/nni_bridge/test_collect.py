from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from nni_proxyless.cli.commands import make_parser
from nni_proxyless.errors import InputError
from nni_proxyless.files.claims import LOCK, Owner
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_bridge.collect import (
    Outcome,
    collect,
    failures,
    format_table,
    next_command,
    summary_rows,
    warnings_of,
)


def job(name: str, status: str, **parameters: Any) -> SimpleNamespace:
    sent = [SimpleNamespace(parameters=parameters)] if parameters else []
    return SimpleNamespace(trialJobId=name, status=status, hyperParameters=sent)


@pytest.fixture
def home(tmp_path: Path, tiny_spec: SpaceSpec) -> Path:
    choices = {layer.label: layer.names[0] for layer in tiny_spec.layers}
    for number, name in enumerate(("one", "two", "three")):
        found = Architecture.of_space(
            tiny_spec,
            choices,
            target="phone",
            strategy="proxyless",
            predicted_latency_ms=1.5,
            metrics={"default": 0.9 + 0.01 * number},
        )
        found.save(tmp_path / "environments" / "local-env" / "trials" / name / "architecture.json")
    failed = tmp_path / "environments" / "local-env" / "trials" / "four"
    failed.mkdir(parents=True)
    (failed / "trial.stderr").write_text("some log\nthe reason\n")
    return tmp_path


def test_no_trial_overwrites_another_ones_result(home: Path, tmp_path: Path) -> None:
    used: set[Path] = set()
    results = tmp_path / "results"
    jobs = [
        job("one", "SUCCEEDED", target="phone"),
        job("two", "SUCCEEDED", target="phone"),
        job("three", "SUCCEEDED", target="phone", seed=3),
        job("four", "FAILED"),
    ]
    outcomes = [collect(j, home, results, used) for j in jobs]
    assert [o.folder for o in outcomes] == [
        results / "phone",
        results / "phone" / "two",
        results / "phone" / "seed-3",
        None,
    ]
    for outcome, accuracy in zip(outcomes, (0.9, 0.91, 0.92), strict=False):
        assert outcome.folder is not None
        assert Architecture.load(outcome.folder / "architecture.json").metrics["default"] == pytest.approx(accuracy)
    assert outcomes[3].reason == "the reason"
    rows = summary_rows(outcomes)
    assert [row["accuracy"] for row in rows] == ["0.9000", "0.9100", "0.9200"]
    assert {row["measured_latency_ms"] for row in rows} == {"not measured"}
    lines = format_table(rows).splitlines()
    assert len(lines) == 4
    assert lines[0].split() == [column for column in rows[0] if any(row[column] for row in rows)]


@pytest.mark.parametrize(
    ("parameters", "folder"),
    [
        ({"seed": 3}, "seed-3"),
        ({"space": "../../x.yml"}, "space-..-..-x.yml"),
        ({"space": "/etc/x"}, "space--etc-x"),
        ({"../../x": 1}, "-..-x-1"),
        ({"a\\b": "c\\d"}, "a-b-c-d"),
        ({"a": "b\x00\n\u202ec"}, "a-b---c"),
        ({"a": "x" * 500}, ""),
        ({"a": {"b": ["c/d"]}}, "a-{'b': ['c-d']}"),
    ],
)
def test_other_parameters_become_the_name_of_one_folder(
    parameters: dict[str, Any], folder: str, home: Path, tmp_path: Path
) -> None:
    outcome = collect(job("one", "SUCCEEDED", target="phone", **parameters), home, tmp_path / "results", set())
    assert outcome.folder is not None
    (made,) = (tmp_path / "results" / "phone").iterdir()
    assert outcome.folder == made
    assert made.name == folder or (not folder and len(made.name) == 100 and made.name.startswith("a-xxx"))


def test_a_folder_that_another_process_uses_keeps_its_files_and_the_trial_gets_another(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    used = tmp_path / "results" / "phone"
    used.mkdir(parents=True)
    lock = {"host": Owner.this().host, "boot": Owner.this().boot, "process": os.getppid()}
    (used / LOCK).write_text(json.dumps({**lock, "started": psutil.Process(os.getppid()).create_time()}))
    (used / "architecture.json").write_text("of a search that runs")
    outcome = collect(job("one", "SUCCEEDED", target="phone"), home, tmp_path / "results", set())
    assert (used / "architecture.json").read_text() == "of a search that runs"
    assert outcome.folder == used / "one"
    assert Architecture.load(used / "one" / "architecture.json").metrics["default"] == pytest.approx(0.9)
    assert {path.name for path in used.rglob("*")} == {LOCK, "architecture.json", "one"}
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"{used} is in use by process {os.getppid()}" in told
    assert told.endswith(f"the results of trial one are in {used / 'one'}")


@pytest.mark.parametrize("name", ["../one", "/tmp/one", "..", "a/b", "", "a\x00"])
def test_ids_of_trials_lead_out_of_no_folder(name: str, home: Path, tmp_path: Path) -> None:
    for status in ("SUCCEEDED", "FAILED"):
        with pytest.raises(InputError, match="the id of a trial must be a name"):
            collect(job(name, status, target="phone"), home, tmp_path / "results", set())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("architecture.json", "{", "damaged results: .*architecture.json.* cannot be parsed"),
        ("model_card.json", "[]", "damaged results: .*must be a mapping"),
        ("model_card.json", "{}", "damaged results: .*must be an accuracy, got None"),
        (
            "model_card.json",
            '{"results": {"validation": {"top1": 1}}, "trial_parameters": 5}',
            "damaged results: .*'trial_parameters' must be a mapping, got 5",
        ),
    ],
)
def test_damaged_results_of_a_trial_cost_only_this_trial(
    file: str, content: str, reason: str, home: Path, tmp_path: Path
) -> None:
    trials = home / "environments" / "local-env" / "trials"
    (trials / "one" / file).write_text(content)
    (trials / "two" / "latency_table.yml").write_text("{")
    outcomes = [collect(job(name, "SUCCEEDED"), home, tmp_path / "results", set()) for name in ("one", "two")]
    assert re.fullmatch(f"{reason}.*", outcomes[0].reason or "")
    assert outcomes[0].folder is None
    rows = summary_rows(outcomes)
    assert [(row["accuracy"], row["latency_table"]) for row in rows] == [("0.9100", "cannot be read")]


def test_trials_that_were_repeated_or_made_by_hand_are_no_failures(home: Path, tmp_path: Path) -> None:
    good = collect(job("one", "SUCCEEDED", target="phone", seed=1), home, tmp_path / "results", set())
    crashed = Outcome("c", {"seed": 1, "target": "phone"}, "USER_CANCELED", reason="epoch 3/8")
    lost = Outcome("l", {"seed": 2, "target": "phone"}, "FAILED", reason="r" * 10_000)
    by_hand = Outcome("h", {"targets": "x" * 10_000}, "FAILED", reason="refused", by_hand=True)
    failed, others = failures([crashed, good, lost, by_hand])
    (told,) = failed
    assert told.startswith("trial l FAILED ({'seed': 2, 'target': 'phone'}): rrr")
    assert others[0] == "trial c USER_CANCELED, repeated with success ({'seed': 1, 'target': 'phone'}): epoch 3/8"
    assert others[1].startswith("trial h FAILED, made by hand ({'targets': 'xxx")
    assert all(len(text) < 800 for text in [*failed, *others])
    assert failures([good]) == ([], [])


@pytest.mark.parametrize(("measured", "objective", "warned"), [(1.7, "", 1), (1.55, "", 0), (1.7, "add_linear", 0)])
def test_a_network_that_is_too_slow_when_measured_is_warned_of(
    measured: float, objective: str, warned: int, tmp_path: Path, tiny_spec: SpaceSpec
) -> None:
    choices = {layer.label: layer.names[0] for layer in tiny_spec.layers}
    found = Architecture.of_space(
        tiny_spec, choices, target="phone", budget_ms=1.6, predicted_latency_ms=1.5, measured_latency_ms=measured
    )
    if objective:
        (tmp_path / "recipe.yml").write_text(f"strategy: proxyless\nobjective: {objective}\n")
    told = warnings_of([Outcome("one", {}, "SUCCEEDED", tmp_path, found)])
    assert len(told) == warned
    if told:
        assert told[0].startswith(f"{tmp_path}: the network is not within its budget (kept according to the table, NOT")
        assert told[0].endswith("phone 1.5 of 1.6 ms, measured 1.7 ms); a search with a budget of 1.412 ms leaves room")


def test_the_next_command_is_for_the_first_network_and_can_be_pasted(
    tmp_path: Path, tiny_spec: SpaceSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Architecture.of_space(tiny_spec, {layer.label: layer.names[0] for layer in tiny_spec.layers})
    own_class = Architecture("Own", "", {"layer": "first"})
    failed = Outcome("failed", {}, "FAILED", reason="no memory")
    unknown = Outcome("own", {}, "SUCCEEDED", Path("results/own"), own_class)
    searched = Outcome("one", {}, "SUCCEEDED", Path("my results/it's/phone"), found)
    other = Outcome("two", {}, "SUCCEEDED", Path("results/board"), found)
    command = next_command([failed, unknown, searched, other])
    assert shlex.split(command) == ["nni-proxyless", "retrain", "my results/it's/phone"]
    parsed = make_parser().parse_args(shlex.split(command)[1:])
    assert parsed.architecture == "my results/it's/phone"
    trained = Outcome("trained", {}, "SUCCEEDED", Path("results/half"), found, card={"results": {}})
    assert next_command([trained]) == "nni-proxyless export results/half --format onnx int8"
    assert next_command([failed, unknown]) == next_command([]) == ""
