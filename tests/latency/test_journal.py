"""Journals of measurements: whatever a crash leaves in them, only whole and possible samples are taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_proxyless.errors import InputError
from nni_proxyless.latency.journal import Journal, export_samples

HEADER = {"space": "tiny"}


@pytest.mark.parametrize(
    "line",
    [
        b'["half a li', b'["x", 1, NaN]', b'["x", 1, 1e999]', b'["x", 1, -5]', b'["x", -1, 5]', b'["x", 1, true]',
        b"[1, 2, 3]", b'["x", 1, ' + b"9" * 400 + b"]", b"[" * 5000, b"{}", b'"x"', b"null", b'["x", 1]', b"",
        b'["x", ' + b"9" * 5000 + b", 1]", b"\x00\xff\xfe" * 1000, b'["x\xff', b'["x", "1", "2"]',
    ],
)  # fmt: skip
def test_lines_that_are_no_samples_are_dropped(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(json.dumps(HEADER).encode() + b"\n" + line + b'\n["good", 1, 2]\n')
    journal = Journal(path, HEADER)
    assert list(journal.samples()) == [("good", 1.0, 2.0)]
    journal.write("more", 3.0, 4.0)
    journal.close()
    assert path.read_text() == '{"space": "tiny"}\n["good", 1.0, 2.0]\n["more", 3.0, 4.0]\n'
    rows = export_samples([path], tmp_path / "samples.csv").read_text().splitlines()
    assert rows == ["process,workload,moment_s,value", "1,good,1.000000,2.0", "1,more,3.000000,4.0"]


def test_a_file_that_is_no_journal_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"\x00\x01\xff\n" * 100)
    with pytest.raises(InputError, match="is not a journal of a measurement"):
        Journal(path, HEADER)
    assert path.read_bytes() == b"\x00\x01\xff\n" * 100
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="journal of a measurement"):
        Journal(path, HEADER)
