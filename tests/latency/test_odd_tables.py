"""Tables with odd names, and caches with damaged files: shown, or named as unreadable, without an exception."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nni_proxyless.cli.entry import main
from nni_proxyless.latency import Device, LatencyTable
from nni_proxyless.latency.validate import Validation, plot


@pytest.mark.parametrize("title", ["$x^{$ on $", "\u6f22\u5b57", "a\\$b"])
def test_a_title_of_a_plot_is_no_formula(title: str, tmp_path: Path) -> None:
    latencies = np.array([1.0, 2.0, 3.0])
    path = plot(Validation([], latencies, latencies, latencies), title, tmp_path / "plot.png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_list_of_kept_tables_names_what_cannot_be_read(
    tiny_table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NNI_PROXYLESS_CACHE", str(tmp_path))
    place = tmp_path / "tables"
    odd = Device("phone \u2028 $x^{$ ../\x1b[2J", "none", 1)
    replace(tiny_table, device=odd).save(place / "good.yml")
    (place / "folder.yml").mkdir()
    (place / "half.yml").write_bytes((place / "good.yml").read_bytes()[:400])
    (place / "bytes.yml").write_bytes(b"\x00\xff" * 50)
    (place / "nested.yml").write_text("[" * 5000)
    (place / "dangling.yml").symlink_to(tmp_path / "nowhere")
    os.mkfifo(place / "pipe.yml")
    for words in (["latency", "list"], ["latency", "list", "--remeasure"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        assert said.out.count("cannot be read  ") == 6
        assert "\x1b" not in said.out
