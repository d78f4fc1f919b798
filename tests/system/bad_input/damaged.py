"""Files that are empty, binary, truncated or hostile, given to every command that reads a file of that kind."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from .case import Case
from .folder import ARCHITECTURE, CONFIG, RECIPE, RETRAIN, SPACE, TABLE, as_json

_YAML_READERS = [
    ("search bad.yml", yaml.safe_dump(RECIPE)),
    ("retrain architecture.json --recipe bad.yml --output out", yaml.safe_dump(RETRAIN)),
    ("run bad.yml", yaml.safe_dump(CONFIG)),
    ("latency measure --backend flops --out made.yml --space bad.yml", yaml.safe_dump(SPACE)),
    ("latency show bad.yml --space space.yml", yaml.safe_dump(TABLE)),
    (
        "latency import bad.yml --format proxylessnas --out made.yml",
        "a-input:1x1x1: {mean: 1, count: 1}\n",
    ),
]
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join(['*' + before] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


_CASES = []
for command, good in _YAML_READERS:
    for content, says in (
        ("", "holds nothing"),
        ("# only a comment\n", "holds nothing"),
        ("- 1\n- 2\n", "holds a list"),
        ("word\n", "holds a string"),
        ("5\n", "holds a number"),
        ("a: [1, 2\n", "cannot be parsed"),
        ("a: b: c\n", "cannot be parsed"),
        ("\ta: 1\n", "cannot be parsed"),
        ("a: *nowhere\n", "cannot be parsed"),
        ("a: &a [*a]\n", "alias"),
        (f"{good}---\n{good}", "cannot be parsed"),
        (f"{good}{good.splitlines()[0]}\n" if not good.startswith("a-") else good * 2, "twice"),
        (good.encode("utf-16"), "text"),
        (b"\xff\xd8\xff\xe0" + bytes(range(256)), "text"),
        (good.replace("\n", "\0\n", 1), "a character NUL"),
        (_BOMB, "alias"),
        (_MERGES, "alias"),
        ("a: " + "[" * 3000, "nesting"),
        ("a: " + "{b: " * 3000, "nest"),
        ("a: !!int abc\n", "cannot be parsed"),
        ("a: !!float x\n", "cannot be parsed"),
        ("a: 2026-13-45\n", "cannot be parsed"),
        ("a: !!python/object/apply:os.system [touch made]\n", "cannot be parsed"),
        ("? [1, 2]\n: 3\n", "cannot be parsed"),
        ("? {a: 1}\n: 3\n", "cannot be parsed"),
        ("a: " + "9" * 5000 + "\n", "cannot be read as int"),
    ):
        _CASES.append(Case(command, "bad.yml", says, {"bad.yml": content}))
    _CASES.append(Case(command, "bad.yml", "file", {"bad.yml": _fifo}))
    _CASES.append(Case(command, "bad.yml", "", {"bad.yml": _link_to_itself}))

_JSON = as_json(ARCHITECTURE)
_JSON_CASES = [
    Case("show bad.json", "bad.json", says, {"bad.json": content})
    for content, says in (
        ("", "cannot be parsed"),
        ("{", "cannot be parsed"),
        (_JSON[:-20], "cannot be parsed"),
        (_JSON + "}", "cannot be parsed"),
        ("schema: nni-proxyless/architecture@1\n", "cannot be parsed"),
        ("[]", "holds a list"),
        ("null", "holds nothing"),
        ('"text"', "holds a string"),
        (_JSON.replace('"metrics"', '"target": null, "metrics"', 1), "twice"),
        ("[" * 5000, "nested"),
        ('{"a": ' * 5000, "nested"),
        (_JSON.encode("utf-16"), "text"),
        (b"\x80\x81\x82", "text"),
        (_JSON.replace('"phone"', '"pho\\u0000ne"', 1), "target"),
        (_JSON.replace("0.5", "9" * 5000, 1), "digits"),
        (_JSON.replace("0.5", "NaN", 1), "must be a finite number"),
    )
]

CASES = [*_CASES, *_JSON_CASES, Case("show bad.json", "bad.json", "", {"bad.json": _link_to_itself})]
