"""The command `decode` within several budgets, from a recorded search."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import yaml

from nni_proxyless.cli.entry import main
from nni_proxyless.decoding.budgets import parse_expressions
from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.footprint import network_file_bytes, network_peak_bytes
from tests.helpers import REPOSITORY

SEARCH = REPOSITORY / "tests" / "recorded" / "interrupted_0_1"


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """A phone with the recorded latencies, and a board on which the larger kernels cost twice as much."""
    table = LatencyTable.load(SEARCH / "latency_table.yml")
    table.save(tmp_path / "phone.yml")
    content = table.to_dict()
    for row in content["operators"]:
        row["latency_ms"] = row["latency_ms"] * (2.0 if row.get("kernel", 1) > 3 else 1.0)
    LatencyTable.from_dict(content).save(tmp_path / "board.yml")
    return [str(tmp_path / "phone.yml"), str(tmp_path / "board.yml")]


def decode(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["decode", str(SEARCH), *words])
    streams = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, streams.out, streams.err


def test_one_network_within_all_budgets(tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = SearchCheckpoint.load(SEARCH)
    costs = {name: LatencyTable.load(tmp_path / f"{name}.yml").costs(found.spec) for name in ("phone", "board")}
    limits = {name: 0.7 * of.largest for name, of in costs.items()}
    budgets = [f"--budget={name}<={limit}" for name, limit in limits.items()]
    code, out, _ = decode(
        capsys, "--table", *tables, *budgets, "--budget", "parameters<=80%", "--budget", "peak_memory_int8 <= 1MB",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["phone.json"]
    written = Architecture.load(tmp_path / "out" / "phone.json")
    assert written.candidate_names in out
    assert set(written.budgets) == {"phone", "board", "parameters", "peak_memory_int8"}
    for name, of in costs.items():
        assert written.budgets[name] == {
            "limit": pytest.approx(limits[name]),
            "value": pytest.approx(of.of(written.choices)),
        }
        assert of.of(written.choices) <= limits[name]
    assert written.budgets["peak_memory_int8"]["value"] == network_peak_bytes(written.operators(), "int8")
    # No network of the space that is within all budgets is more likely.
    names = [layer.names for layer in found.spec.layers]
    generator = random.Random(0)
    some = itertools.islice(iter(lambda: [generator.choice(of) for of in names], None), 2000)
    best = found.distribution.log_likelihoods([written.choices])[0]
    for picks in some:
        choices = dict(zip(found.distribution.candidates, picks, strict=True))
        network = Architecture.of_space(found.spec, choices)
        if all(of.of(choices) <= limits[name] for name, of in costs.items()) and (
            network.parameters <= written.budgets["parameters"]["limit"]
        ):
            assert found.distribution.log_likelihoods([choices])[0] <= best + 1e-9


def test_budgets_need_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = decode(capsys, "--budget", "file_size<=70%", "--out", str(tmp_path))
    assert code == 0
    written = Architecture.load(tmp_path / "architecture.json")
    assert written.budgets["file_size"]["value"] == network_file_bytes(written.operators())
    assert written.budgets["file_size"]["value"] <= written.budgets["file_size"]["limit"]


@pytest.mark.parametrize("limits", [(52_000, 61_000), (61_000, 52_000)])
def test_the_tightest_of_several_budgets_is_recorded(
    limits: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--budget=parameters<={limit}" for limit in limits]
    code, out, _ = decode(capsys, *words, "--out", str(tmp_path))
    assert code == 0
    written = Architecture.load(tmp_path / "architecture.json")
    assert written.budgets == {"parameters": {"limit": 52_000, "value": written.parameters}}
    assert f"parameters {written.parameters} of 52000 " in out


def test_counts_are_printed_with_all_digits(capsys: pytest.CaptureFixture[str]) -> None:
    (limit,) = parse_expressions(["multiply_adds<=1234567"])
    found = SearchCheckpoint.load(SEARCH).decode_within({}, [limit])
    code, out, _ = decode(capsys, "--budget", str(limit))
    assert code == 0
    assert f"multiply_adds {found.multiply_adds} of 1234567 " in out


def test_tables_are_called_after_their_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two tables of one run have the same file name. Each is that of the target in the recipe beside it."""
    paths = [REPOSITORY / "tests" / "recorded" / "quickstart" / name for name in ("cpu_torch", "cpu_onnxruntime")]
    found = SearchCheckpoint.load(SEARCH)
    own = LatencyTable.load(SEARCH / "latency_table.yml")
    for path in paths:  # tables of the space of the search
        (tmp_path / path.name).mkdir()
        own.save(tmp_path / path.name / "latency_table.yml")
        (tmp_path / path.name / "recipe.yml").write_text((path / "recipe.yml").read_text())
    tables = [str(tmp_path / path.name / "latency_table.yml") for path in paths]
    code, out, _ = decode(capsys, "--table", *tables, "--out", str(tmp_path / "out"))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["cpu_torch", "cpu_onnxruntime", "architectures:"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cpu_torch.json", "cpu_onnxruntime.json"}
    # The target of the search has its own table, with which its budgets need none.
    limit = 0.7 * own.costs(found.spec).largest
    for words in ([f"cpu_torch<={limit}"], ["latency_table<=70%", "--table", tables[0]]):
        code, out, err = decode(capsys, "--budget", *words, "--out", str(tmp_path / "within"))
        assert code == 0, err
        budgets = Architecture.load(tmp_path / "within" / "cpu_torch.json").budgets
        assert budgets["cpu_torch"]["limit"] == pytest.approx(limit)
        assert budgets["cpu_torch"]["value"] <= limit
    code, _, err = decode(capsys, "--table", tables[0], str(SEARCH / "latency_table.yml"))
    named = f"--table first={tables[0]} second={SEARCH / 'latency_table.yml'}"
    assert code == 2
    assert "two tables are called cpu_torch" in err
    assert named in err
    code, out, _ = decode(capsys, *named.split())
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["first", "second"])
    code, _, err = decode(capsys, "--table", "../out=" + tables[0])
    assert code == 2
    assert "the name of a table" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--budget", "phone=40"], "NAME<=LIMIT"),
        (["--budget", "phone<=40"], "(allowed: cpu_torch, file_size, "),
        (["--budget", "cpu_torc<=40"], "did you mean 'cpu_torch'?"),
        (["--front", "phone", "likelihood", "--out", "nowhere"], "(allowed: cpu_torch, file_size, "),
        (["--budget", "parameters<=10", "--budget-ms", "3"], "not both"),
        (["--budget", "parameters<=10"], "smallest value of any network is"),
        (["--budget", "peak_memory<=3 ms"], "256KiB"),
        (["--finalists", "4"], "--budget"),
    ],
)
def test_wrong_budgets_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = decode(capsys, *words)
    assert code == 2
    assert told in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_conflict_is_one_line_whose_values_are_possible(
    tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A board on which small blocks are slow. The named values are accepted, and smaller ones are refused."""
    content = LatencyTable.load(tmp_path / "board.yml").to_dict()
    for row in content["operators"]:
        row["latency_ms"] = 1.0 / row["latency_ms"]
    LatencyTable.from_dict(content).save(tmp_path / "board.yml")
    both = {
        name: LatencyTable.load(tmp_path / f"{name}.yml").costs(SearchCheckpoint.load(SEARCH).spec)
        for name in ("phone", "board")
    }
    limits = {name: costs.smallest + 0.01 * (costs.largest - costs.smallest) for name, costs in both.items()}
    stated = {**{name: f"{limit}" for name, limit in limits.items()}, "parameters": "100%"}

    def refused_or_found(budgets: dict[str, str]) -> tuple[int, str, str]:
        words = [f"--budget={name}<={limit}" for name, limit in budgets.items()]
        return decode(capsys, "--table", *tables, *words, "--out", str(tmp_path / "out"))

    code, out, err = refused_or_found(stated)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(r"phone <= [\d.]+ ms and board <= [\d.]+ ms together", err)
    assert not (tmp_path / "out").exists()
    possible = re.findall(r"(phone|board) of at least ([\d.]+) ms if the rest holds", err)
    assert {name for name, _ in possible} == {"phone", "board"}
    for name, value in possible:
        assert refused_or_found({**stated, name: value})[0] == 0
        assert refused_or_found({**stated, name: str(0.998 * float(value))})[0] == 2


def test_a_search_whose_budgets_conflict_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yml"
    LatencyTable.load(SEARCH / "latency_table.yml").save(tmp_path / "phone.yml")
    settings = yaml.safe_load((SEARCH / "recipe.yml").read_text(encoding="utf-8"))
    settings |= {"target": "phone", "targets": {"phone": {"table": "phone.yml"}}, "accept_tables": True}
    settings |= {"budget_fraction": None, "budget_ms": None, "budgets": {"phone": "100%", "parameters": 10}}
    recipe.write_text(yaml.safe_dump({key: value for key, value in settings.items() if value is not None}))
    for more in ([], ["--dry-run"], ["share_search=true"]):
        with pytest.raises(SystemExit) as ended:
            main(["search", str(recipe), "--out", str(tmp_path / "out"), *more])
        streams = capsys.readouterr()
        assert ended.value.code == 2
        told = [line for line in streams.err.splitlines() if "error:" in line]
        assert len(told) == 1
        assert "parameters <= 10, and the smallest value of any network is" in told[0]
        assert not (tmp_path / "out").exists()


def test_a_front_within_a_budget(tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = SearchCheckpoint.load(SEARCH)
    front = tmp_path / "front.csv"
    code, out, _ = decode(
        capsys, "--table", tables[0], "--budget", "parameters<=60%", "--budget", "phone<=100%", "--front", str(front)
    )
    assert code == 0
    assert "points on the front" in out
    lines = front.read_text(encoding="utf-8").splitlines()
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    latencies = [float(row[header.index("latency_ms")]) for row in rows]
    likelihoods = [float(row[header.index("log_likelihood")]) for row in rows]
    assert latencies == sorted(latencies)
    assert likelihoods == sorted(likelihoods)
    limit = 0.6 * max(
        Architecture.of_space(found.spec, {layer.label: layer.names[-2] for layer in found.spec.layers}).parameters,
        Architecture.of_space(found.spec, {layer.label: max(layer.names) for layer in found.spec.layers}).parameters,
    )
    for row in rows:
        choices = dict(zip(header, row, strict=True))
        network = Architecture.of_space(found.spec, {layer.label: choices[layer.label] for layer in found.spec.layers})
        assert network.parameters <= limit
