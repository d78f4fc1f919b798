"""NAS-Bench-201: the loader against databases with NNI's schema, and the judgement of a search against brute force."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.spaces.nasbench201 import judged, outcome_of, searched
from benchmarks.spaces.nasbench201_table import EDGES, NETWORKS, OPERATORS, NasBench201Table, operators_of_text
from nni_proxyless.errors import InputError
from tests.helpers import REPOSITORY

# The tables of nni.nas.benchmark.nasbench201.schema in NNI 3.0 with peewee 3, without the columns that are not read.
SCHEMA = """
CREATE TABLE "nb201trialconfig" ("id" INTEGER NOT NULL PRIMARY KEY, "arch" JSON NOT NULL, "num_epochs" INTEGER NOT
 NULL, "num_channels" INTEGER NOT NULL, "num_cells" INTEGER NOT NULL, "dataset" VARCHAR(20) NOT NULL);
CREATE TABLE "nb201trialstats" ("id" INTEGER NOT NULL PRIMARY KEY, "config_id" INTEGER NOT NULL, "seed" INTEGER NOT
 NULL, "valid_acc" REAL NOT NULL, "test_acc" REAL NOT NULL,
 FOREIGN KEY ("config_id") REFERENCES "nb201trialconfig" ("id"));
"""
ALL = list(itertools.product(OPERATORS, repeat=len(EDGES)))


def accuracy_of(operators: tuple[str, ...]) -> float:
    """Made-up accuracy, different for each network."""
    return 20 + 60 * sum(OPERATORS.index(name) * 5**place for place, name in enumerate(operators)) / NETWORKS


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nasbench201") / "nasbench201.db"
    with sqlite3.connect(path) as file:
        file.executescript(SCHEMA)
        configs, stats = [], []
        for number, operators in enumerate(ALL):
            text = json.dumps(dict(sorted(zip(EDGES, operators, strict=True))))
            for place, (data_set, epochs) in enumerate([("cifar10", 200), ("cifar10", 12), ("cifar100", 200)]):
                config = 3 * number + place
                configs.append((config, text, epochs, 16, 5, data_set))
                for seed, change in ((777, -0.5), (888, 0.5)):
                    stats.append((config, seed, 1.0, accuracy_of(operators) / (1 + place) + change))
        file.executemany("INSERT INTO nb201trialconfig VALUES (?, ?, ?, ?, ?, ?)", configs)
        file.executemany(
            "INSERT INTO nb201trialstats (config_id, seed, valid_acc, test_acc) VALUES (?, ?, ?, ?)", stats
        )
    return path


def test_the_database_of_nni_is_read(database: Path) -> None:
    before = database.read_bytes()
    table = NasBench201Table.load(database)
    assert set(table.accuracies) == set(ALL)
    for operators in ALL[::501]:
        assert table.accuracies[operators] == pytest.approx(accuracy_of(operators))
    assert NasBench201Table.load(database, "cifar100").accuracies[ALL[77]] == pytest.approx(accuracy_of(ALL[77]) / 3)
    assert NasBench201Table.load(database, epochs=12).accuracies[ALL[77]] == pytest.approx(accuracy_of(ALL[77]) / 2)
    assert database.read_bytes() == before


def test_a_csv_file_is_read(tmp_path: Path) -> None:
    text = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    other = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    path = tmp_path / "table.csv"
    path.write_text(f"architecture,accuracy\n{text},93.5\n{other},10\n{text},94.5\n")
    found = NasBench201Table.load(path).accuracies
    # By hand: the text lists the edges to node 1, then those to node 2, then those to node 3.
    edges = {
        "0_1": "conv_3x3",
        "0_2": "conv_1x1",
        "1_2": "avg_pool_3x3",
        "0_3": "skip_connect",
        "1_3": "none",
        "2_3": "conv_3x3",
    }
    assert found == {tuple(edges[edge] for edge in EDGES): 94.0, ("none",) * 6: 10.0}
    assert operators_of_text(other) == ("none",) * 6


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.csv", "a,b\n1,2\n", "needs the columns architecture and accuracy"),
        ("t.csv", "architecture,accuracy\n|none~0|,5\n", "an architecture must be like"),
        (
            "t.csv",
            "architecture,accuracy\n|no~0|+|none~0|none~1|+|none~0|none~1|none~2|,5\n",
            "an architecture must be like",
        ),
        ("t.csv", "architecture,accuracy\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,x\n", "must be a number"),
        ("t.csv", "architecture,accuracy\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,nan\n", "from 0 to 100"),
        ("t.csv", "architecture,accuracy\n|none~0|+|none~0|none~1|+|none~0|none~1|none~2|,5\n", "has 1 networks"),
        ("t.db", "no database", "is no database of NNI's NAS-Bench-201"),
        ("t.pth", "", "must be NNI's .db file, or a .csv file"),
    ],
)
def test_other_files_are_refused(name: str, text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=told):
        NasBench201Table.load(tmp_path / name)


def test_wrong_arguments_are_refused(database: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        NasBench201Table.load(tmp_path / "nothing.db")
    assert not (tmp_path / "nothing.db").exists()
    with pytest.raises(InputError, match="unknown data set 'cifar'"):
        NasBench201Table.load(database, "cifar")
    with pytest.raises(InputError, match="has 0 networks of NAS-Bench-201 for imagenet16-120 and 200 epochs"):
        NasBench201Table.load(database, "imagenet16-120")


def test_a_search_is_judged_as_by_brute_force(database: Path) -> None:
    table = NasBench201Table.load(database)
    generator = np.random.default_rng(0)
    probs = {edge: generator.dirichlet(np.ones(5)) for edge in EDGES}
    logs = {edge: dict(zip(OPERATORS, np.log(of).tolist(), strict=True)) for edge, of in probs.items()}
    finalists = [
        (ALL[number], float(score)) for number, score in zip([5, 700, 9000, 15000], [0.3, 0.1, 0.6, 0.5], strict=True)
    ]
    found = judged(table, logs, finalists, ALL[9000])
    likelihood = [
        math.prod(probs[edge][OPERATORS.index(name)] for edge, name in zip(EDGES, of, strict=True)) for of in ALL
    ]
    true = [accuracy_of(of) for of in ALL]
    assert found.networks == 15625
    assert found.spearman == pytest.approx(spearmanr(likelihood, true)[0])
    assert found.finalists_spearman == pytest.approx(
        spearmanr([0.3, 0.1, 0.6, 0.5], [true[number] for number in (5, 700, 9000, 15000)])[0]
    )
    assert found.accuracy == pytest.approx(true[9000])
    assert found.regret == pytest.approx(max(true) - true[9000])
    assert found.percentile == pytest.approx(100 * sum(of <= true[9000] for of in true) / 15625)


def test_a_search_in_the_hubs_space_is_looked_up(database: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (48, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(48) % 10)
    options = argparse.Namespace(batch_size=8, learning_rate=0.001, epochs=1, channels=4, cells=1)
    strategy = searched(tmp_path / "images.npz", 0, options)
    table = NasBench201Table.load(database)
    found = outcome_of(strategy, table)
    choices = strategy.export_architecture().choices
    by_hand = tuple(next(of for label, of in choices.items() if label.endswith(edge)) for edge in EDGES)
    assert found.accuracy == pytest.approx(accuracy_of(by_hand))
    assert (found.networks, found.finalists) == (15625, 64)
    assert -1 <= found.spearman <= 1


def test_the_script_refuses_a_bad_table_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.spaces.nasbench201", "--table", "no.db", "--data", str(tmp_path)],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "nasbench201.py: error: there is no file no.db"
