"""Accuracies of all networks of NAS-Bench-201, from a file that is already there. Nothing is downloaded.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nni_proxyless.errors import InputError, clipped, shown, unknown_name
from nni_proxyless.files.reading import read_rows

EDGES = ("0_1", "0_2", "1_2", "0_3", "1_3", "2_3")  # source and target node, in the order of the architecture's text
OPERATORS = ("none", "skip_connect", "conv_1x1", "conv_3x3", "avg_pool_3x3")  # as in NNI's hub
NETWORKS = len(OPERATORS) ** len(EDGES)
DATA_SETS = ("cifar10-valid", "cifar10", "cifar100", "imagenet16-120")
_OF_TEXT = {"nor_conv_1x1": "conv_1x1", "nor_conv_3x3": "conv_3x3"}  # names in the paper's text that NNI has shortened
_TEXT = re.compile(r"\|(.+)~0\|\+\|(.+)~0\|(.+)~1\|\+\|(.+)~0\|(.+)~1\|(.+)~2\|")
_EXAMPLE = "|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|"
_QUERY = """
SELECT c.arch, AVG(s.test_acc) FROM nb201trialconfig c JOIN nb201trialstats s ON s.config_id = c.id
WHERE c.dataset = ? AND c.num_epochs = ? GROUP BY c.arch
"""

Operators = tuple[str, ...]


@dataclass(frozen=True)
class NasBench201Table:
    """True accuracies of networks.

    Attributes:
        accuracies: Mean test accuracy in percent, by the operators of the edges in the order of `EDGES`.
    """

    accuracies: Mapping[Operators, float]

    @classmethod
    def load(cls, path: Path, data_set: str = "cifar10", epochs: int = 200) -> NasBench201Table:
        """Read a table.

        Args:
            path: `.db` file of NNI (`nni.nas.benchmark.nasbench201`), or a `.csv` file with the columns `architecture`
                and `accuracy`. The former is a text such as
                `|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|none~2|`, and the latter is in percent. If an
                architecture has several rows, their mean counts.
            data_set: One of `DATA_SETS`. A `.csv` file has one data set only.
            epochs: 12 or 200, how long the networks were trained. A `.csv` file has one number only.

        Raises:
            InputError: The file cannot be read, has no accuracies, or has something else in their place.
        """
        if data_set not in DATA_SETS:
            raise InputError(unknown_name("data set", data_set, DATA_SETS))
        if path.suffix not in (".db", ".csv"):
            raise InputError(
                f"a table of NAS-Bench-201 must be NNI's .db file, or a .csv file with the columns architecture and "
                f"accuracy, got {clipped(str(path))}"
            )
        read = _read_csv(path) if path.suffix == ".csv" else _read_database(path, data_set, epochs)
        values: dict[Operators, list[float]] = {}
        for operators, accuracy in read:
            if not 0 <= accuracy <= 100:
                raise InputError(f"{clipped(str(path))}: an accuracy must be in percent, from 0 to 100, got {accuracy}")
            values.setdefault(operators, []).append(accuracy)
        if len(values) < 2:
            raise InputError(
                f"{clipped(str(path))} has {len(values)} networks of NAS-Bench-201 for {data_set} and {epochs} epochs"
            )
        return cls({operators: math.fsum(of) / len(of) for operators, of in values.items()})


def operators_of_text(text: str) -> Operators:
    """Return the operators of a network from the text that the authors use.

    Raises:
        InputError: It is no such text.
    """
    found = _TEXT.fullmatch(text)
    named = tuple(_OF_TEXT.get(name, name) for name in found.groups()) if found else ()
    if not found or not set(named) <= set(OPERATORS):
        raise InputError(
            f"an architecture must be like |none~0|+|none~0|none~1|+|none~0|none~1|none~2|, got {shown(text)}"
        )
    return named


def _read_csv(path: Path) -> list[tuple[Operators, float]]:
    named = clipped(str(path))
    rows = read_rows(path, "table of NAS-Bench-201", InputError)
    if rows and not {"architecture", "accuracy"} <= rows[0].keys():
        raise InputError(f"{named} needs the columns architecture and accuracy, got {shown(list(rows[0]))}")
    found = []
    for row in rows:
        try:
            accuracy = float(row["accuracy"])
        except ValueError:
            raise InputError(f"{named}: an accuracy must be a number, got {shown(row['accuracy'])}") from None
        found.append((operators_of_text(row["architecture"]), accuracy))
    return found


def _read_database(path: Path, data_set: str, epochs: int) -> list[tuple[Operators, float]]:
    if not path.is_file():
        raise InputError(f"there is no file {clipped(str(path))}")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(_QUERY, (data_set, epochs)).fetchall()
        return [(_operators(json.loads(architecture)), float(accuracy)) for architecture, accuracy in rows]
    except (sqlite3.Error, ValueError, TypeError, KeyError) as reason:
        raise InputError(f"{clipped(str(path))} is no database of NNI's NAS-Bench-201: {reason}") from reason


def _operators(architecture: Mapping[str, str]) -> Operators:
    found = tuple(architecture[edge] for edge in EDGES)
    if not set(found) <= set(OPERATORS):
        raise ValueError(f"unknown operators in {architecture}")
    return found
