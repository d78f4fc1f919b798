"""Tab completion: commands, options, shipped experiments, keys and values."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nni_proxyless.cli import completion
from nni_proxyless.cli.entry import main
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_code_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    assert ended.value.code == 0
    code = capsys.readouterr().out
    assert "nni-proxyless" in code
    assert "_ARGCOMPLETE" in code
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=code, text=True, check=False).returncode == 0


def test_a_shell_gets_completions(tmp_path: Path) -> None:
    """As argcomplete's code in the shell asks for them."""
    out = tmp_path / "out"
    for line, expected in (("nni-proxyless sea", "search "), ("nni-proxyless search quickstart epo", "epochs=")):
        environment = {
            **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash",
            "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        }  # fmt: skip
        words = [sys.executable, "-m", "nni_proxyless"]
        subprocess.run(words, env=environment, cwd=REPOSITORY, check=False, capture_output=True)
        assert out.read_text() == expected


def test_values_of_keys() -> None:
    parsed = argparse.Namespace(recipe="quickstart")
    assert completion.search_settings("", parsed) == [f"{key}=" for key in Recipe().to_dict()]
    assert completion.search_settings("target=", parsed) == ["target=cpu_torch", "target=cpu_onnxruntime"]
    assert "strategy=gumbel_darts" in completion.search_settings("strategy=gum", parsed)
    assert completion.search_settings("arch_gradient=t", parsed) == [
        "arch_gradient=two_path", "arch_gradient=full", "arch_gradient=reinforce",
    ]  # fmt: skip
    assert completion.search_settings("share_warmup=", parsed) == ["share_warmup=true", "share_warmup=false"]
    assert completion.search_settings("seed=", argparse.Namespace(recipe="nowhere")) == []
    assert "quickstart" in completion.recipes("")
