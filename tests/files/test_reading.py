"""Reading of files: every fault is an error of the caller's kind, in one line, without much time or memory."""

from __future__ import annotations

import ast
import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.errors import (
    MOST_SHOWN,
    ArchitectureError,
    InputError,
    RecipeError,
    WriteError,
    clipped,
    shown,
    unknown_name,
)
from nni_proxyless.files import parsing
from nni_proxyless.files.reading import (
    MOST_YAML_BYTES,
    read_bytes,
    read_document,
    read_mapping,
    read_rows,
    read_text,
    user_path,
)
from nni_proxyless.files.writing import write_csv, write_json, write_yaml
from tests.helpers import REPOSITORY

PACKAGE = REPOSITORY / "nni_proxyless"


def aliases(of: Callable[[str], str]) -> str:
    """Document whose eleven lines each repeat the one before nine times."""
    lines = [of("x")] + [of(",".join(f"*{chr(97 + line)}" for _ in range(9))) for line in range(10)]
    return "".join(f"{chr(97 + number)}: &{chr(97 + number)} {line}\n" for number, line in enumerate(lines))


BAD_YAML = {
    "aliases of lists": (aliases(lambda inside: f"[{inside}]"), "its aliases repeat more than"),
    "aliases of merged mappings": (
        aliases(lambda inside: "{k: 1}" if inside == "x" else f"{{<<: [{inside}]}}"),
        "its aliases repeat more than",
    ),
    "aliases of a long text": ("a: &a " + "x" * 60_000 + "\nb: [*a, *a]", "its aliases repeat more than"),
    "alias within itself": ("a: &a [*a]", "an alias stands within what it names"),
    "aliases that nest deeply": (
        "".join(f"k{n}: &k{n} [[[[[[[[[[{f'*k{n - 1}' if n else 1}]]]]]]]]]]\n" for n in range(9)),
        "nested more than 50 levels",
    ),
    "unknown alias": ("a: *b", "undefined alias"),
    "deep lists": ("[" * 100_000, "nest"),
    "deep mappings": ("{a: " * 10_000, "nest"),
    "deep blocks": ("- " * 3_000 + "a", "nest"),
    "timestamp": ("a: 2026-01-01", "line 1, column 4"),
    "no timestamp": ("a: 2026-13-45", "the timestamp '2026-13-45' is not allowed; if it is a string, put it in quotes"),
    "no integer": ("a: !!int abc", "'abc' cannot be read as int"),
    "empty integer": ("a: !!int ''", "'' cannot be read as int"),
    "no truth value": ("a: !!bool 7", "'7' cannot be read as bool"),
    "no float": ("a: !!float x", "'x' cannot be read as float"),
    "bytes": ("a: !!binary abcd", "binary"),
    "set": ("a: !!set {b}", "a value of type set is not allowed"),
    "object": ("a: !!python/object/apply:os.system [ls]", "not allowed"),
    "key twice": ("a: 1\nb:\n  c: 1\n  c: 2", "the key 'c' is there twice in line 4, column 3"),
    "number as key": ("1: a", "a key must be a string, so put it in quotes, got '1'"),
    "truth value as key": ("on: a", "a key must be a string"),
    "list as key": ("? [a]\n: 1", "a key must be a string"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
    "NUL": ("a: \0", "a character NUL at character 4"),
    "escaped NUL": ('a: {b: "\\0"}', "a.b has a character NUL"),
    "mark in the middle": ("a: \ufeff", "a byte order mark at character 4"),
    "not a number": ("a: [1, {b: .nan}]", r"a\[1\].b must be a finite number, got nan"),
    "infinite": ("a: -.inf", "a must be a finite number, got -inf"),
    "400 digits": ("a: " + "9" * 400, "a must be a number of at most 63 bits, got 999"),
    "5000 digits": ("a: " + "9" * 5000, "cannot be read as int"),
    "9000 hexadecimal digits": ("a: 0x" + "f" * 9000, "of type int that is too large to be shown"),
}


@pytest.mark.parametrize("name", BAD_YAML)
@pytest.mark.parametrize("base", [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)], ids=["python", "c"])
def test_bad_yaml(name: str, base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parsing, "_Loader", parsing._loader(base))
    text, message = BAD_YAML[name]
    path = tmp_path / "x.yml"
    path.write_bytes(text.encode())
    with pytest.raises(RecipeError, match=message) as caught:
        read_mapping(path, "recipe", RecipeError)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('{"a": {"b": NaN}}', "a.b must be a finite number, got nan"),
        ('{"a": -Infinity}', "a must be a finite number, got -inf"),
        ('{"a": 1e999}', "a must be a finite number, got inf"),
        ("[" * 100_000, "it is nested too deeply"),
        ("[" * 100, "it is nested too deeply"),
        ("[" * 40, "Expecting value"),
        ('{"a": ' * 60 + "1" + "}" * 60, "nested more than 50 levels"),
        ('{"a": "\\ud800"}', "a has half of a surrogate pair"),
        ('{"\\u0000": 1}', "a key has a character NUL"),
        ('{"a": ' + "9" * 400 + "}", "a must be a number of at most 63 bits"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be parsed"),
        ("", "Expecting value"),
        ('{"a": 1} x', "Extra data"),
        ("[1]", "must be a mapping of keys to values, but holds a list"),
        ("null", "but holds nothing"),
    ],
)
def test_bad_json(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ArchitectureError, match=message) as caught:
        read_mapping(path, "architecture", ArchitectureError)
    assert len(str(caught.value)) < 500


def test_aliases_and_merged_keys_within_the_bounds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("base: &b {x: 1, y: [2, 3.5]}\nother: {<<: *b, x: 5}\nlist: [*b, null, true, 'a', 1e-3]\n")
    base = {"x": 1, "y": [2, 3.5]}
    content = {"base": base, "other": {**base, "x": 5}, "list": [base, None, True, "a", "1e-3"]}
    assert read_mapping(path, "recipe", RecipeError) == content


@pytest.mark.parametrize("name", ["x.yml", "x.json", "x.csv"])
def test_a_byte_order_mark_is_skipped_at_the_beginning_and_refused_elsewhere(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = "a,b\n1,2\n" if name == "x.csv" else '{"a": 1}'
    read: Any = read_rows if name == "x.csv" else read_document
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(path, "file", InputError) == ([{"a": "1", "b": "2"}] if name == "x.csv" else {"a": 1})
    path.write_bytes(b"\xef\xbb\xbf" * 2 + text.encode())
    with pytest.raises(InputError, match="it has a byte order mark at character 1"):
        read(path, "file", InputError)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    odd = {
        "a\ufeffb": ["\x85\u2028", "\x07", "é", "2026-01-01", "on", "=", "<<", 2**63 - 1, -(2**63) + 1, 1e-300, None]
    }
    assert read_mapping(write_json(tmp_path / "x.json", odd), "file", InputError) == odd
    assert read_mapping(write_yaml(tmp_path / "x.yml", odd), "file", InputError) == odd
    for write, name in ((write_json, "x.json"), (write_yaml, "x.yml")):
        with pytest.raises(WriteError, match=r"x\.\w+: a\[1\]\.b is (nan|inf), not a finite number"):
            write(tmp_path / name, {"a": [1.0, {"b": math.nan if name == "x.json" else math.inf}]})
        assert read_mapping(tmp_path / name, "file", InputError) == odd
    rows = [{"a": 'x"y', "b": "1,2"}, {"a": "line\nbreak", "b": ""}]
    assert read_rows(write_csv(tmp_path / "x.csv", ("a", "b"), rows), "file", InputError) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must begin with a line of different column names"),
        ("a,a\n1,2\n", "different column names, got"),
        ("a,b\n1\n", "row 1 has 1 cells, but there are 2 columns"),
        ("a,b\n1,2,3\n", "row 1 has 3 cells"),
        ('a,b\n"1,2\n', "cannot be parsed"),
        ("a,b\n" + "x" * 200_000 + ",2\n", "cannot be parsed: field larger than field limit"),
        ("a\0,b\n", "it has a character NUL at character 2"),
    ],
)
def test_bad_rows(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(path, "history", InputError)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    cases = {
        tmp_path / "pipe": "it is a pipe, not a file",  # nobody writes into it, so opening it would wait for ever
        Path("/dev/zero"): "it is a device, not a file",
        tmp_path / "socket": "No such device or address",
        tmp_path: "Is a directory",
        tmp_path / "none": "No such file or directory",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / ("x" * 300): "File name too long",
        Path("/dev/null/x"): "Not a directory",
        tmp_path / "a\0b": "embedded null byte",
    }
    for path, message in cases.items():
        for read in (read_text, read_bytes, read_mapping, read_rows):
            with pytest.raises(RecipeError, match=f"^cannot read recipe .*{message}"):
                read(path, "recipe", RecipeError)
    listening.close()


def test_large_files_and_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    with path.open("wb") as file:
        file.truncate(MOST_YAML_BYTES + 1)  # takes no space on the disk
    with pytest.raises(RecipeError, match="it has more than 32 MiB, which is the limit"):
        read_mapping(path, "recipe", RecipeError)
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"it is not text in UTF-8 \(byte 4\)"):
        read_mapping(path, "recipe", RecipeError)
    path.write_bytes("a: é".encode("utf-16"))
    with pytest.raises(RecipeError, match="it is not text in UTF-8"):
        read_mapping(path, "recipe", RecipeError)


def test_paths_of_unknown_users_and_with_nul() -> None:
    with pytest.raises(RecipeError, match="cannot read recipe ~nouser/x: there is no such home folder"):
        user_path("~nouser/x", "recipe", RecipeError)
    with pytest.raises(RecipeError, match="a path cannot have a character NUL"):
        user_path("a\0b", "recipe", RecipeError)
    assert user_path("~/x", "recipe", RecipeError) == Path.home() / "x"


def test_messages_show_little_of_a_large_value() -> None:
    nested: Any = 1
    for _ in range(5000):
        nested = [nested]
    shared: Any = ["x"]
    for _ in range(30):
        shared = [shared] * 9  # 9 ** 30 texts, if they were all written
    for value in ("x" * 10**6, list(range(10**5)), nested, shared, 10**6000, {"a": {"b": "y" * 10**6}}, 10**3000):
        assert len(shown(value)) <= MOST_SHOWN
    assert shown({"a": [1, None]}) == "{'a': [1, None]}"
    assert clipped("x" * 500 + "end", 20) == "x" * 14 + "…" + "xxend"
    assert len(unknown_name("key", "x" * 10**6, ["a"])) < 300
    assert len(str(InputError("x" * 10**6))) == 2000


# Calls that read, and the files in which they stand for a reason other than reading what a user has named.
READERS = {
    "files/reading.py": "the readers of text",
    "data/pillow_images.py": "Pillow, which gets a file that `open_regular` has opened",
    "files/parsing.py": "the parsers",
    "files/writing.py": "bringing what was written to the disk",
    "data/npz_file.py": "the reader of arrays",
    "data/found_images.py": "the headers of images, which Pillow reads from a file that `open_regular` has opened",
    "network/torch_file.py": "the reader of tensors",
    "latency/device.py": "/proc/cpuinfo",
    "latency/worker_job.py": "messages between our own processes",
    "latency/backends/pattern_search.py": "messages between our own processes",
    "nni_bridge/algorithm_check.py": "messages between our own processes",
    "nni_bridge/algorithms.py": "messages between our own processes",
    "nni_bridge/jobs.py": "the answer of NNI's manager",
    "nni_bridge/offered.py": "the database of NNI's manager",
    "files/claims.py": "the owner of a lock, of which 4096 bytes are read, and the id of this start of the machine",
    "files/work_folder.py": "a folder that is locked",
    "cli/streams.py": "the streams of the process",
    "latency/fresh_process.py": "messages between our own processes",
    "latency/journal.py": "appends to the journal",
    "latency/backends/command.py": "a model that this package has exported",
    "latency/backends/onnx_model.py": "a model that this package has exported",
    "latency/backends/mnn.py": "a model that this package has converted",
    "latency/backends/ncnn.py": "a model that this package has converted",
    "network/quantization.py": "a model that this package has quantised",
    "nni_bridge/manager.py": "the log of NNI's manager",
    "nni_bridge/collect.py": "the last line of a trial's log",
    "nni_bridge/tuner.py": "the answer of NNI's manager",
}
_READING = {
    "yaml": {"load", "safe_load", "load_all", "safe_load_all", "full_load", "unsafe_load", "parse", "compose"},
    "json": {"load", "loads"},
    "np": {"load", "loadtxt", "genfromtxt", "fromfile", "memmap"},
    "torch": {"load"},
    "pickle": {"load", "loads"},
    "csv": {"reader", "DictReader"},
}
_METHODS = {"read_text", "read_bytes", "open"}


def _reading_calls(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "open":
            found.add("open")
        module = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if isinstance(node, ast.Attribute) and node.attr in _READING.get(module, ()):
            found.add(f"{module}.{node.attr}")
        if isinstance(node, ast.Attribute) and node.attr in _METHODS and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
    return found


def test_files_are_read_in_one_place_only() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix(): calls
        for path in sorted(PACKAGE.rglob("*.py"))
        if (calls := _reading_calls(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert {name: calls for name, calls in found.items() if name not in READERS} == {}
    assert set(READERS) <= set(found)  # an entry that is no longer needed would hide a later fault


def test_reading_elsewhere_would_be_found() -> None:
    code = "import json\nx = json.loads(path.read_text())\nwith open(p) as f: y = yaml.safe_load(f)\nz = np.load(p)"
    assert _reading_calls(ast.parse(code)) == {"json.loads", "read_text", "open", "yaml.safe_load", "np.load"}
    assert json.loads("1") == 1
