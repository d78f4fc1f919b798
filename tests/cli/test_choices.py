"""The names in the help are those that exist."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest

from nni_proxyless.cli import choices
from nni_proxyless.cli.entry import main, make_parser
from nni_proxyless.cli.parser import Parser
from nni_proxyless.data.sources import SOURCES
from nni_proxyless.deploy.formats import FILES
from nni_proxyless.latency.backend_names import BACKEND_SETTINGS, TOOL_NAMES
from nni_proxyless.latency.backends import command, onnx_runtime
from nni_proxyless.latency.backends.by_name import BACKENDS
from nni_proxyless.latency.published import FORMATS
from nni_proxyless.latency.tools.registry import TOOLS
from nni_proxyless.network.space_spec import shipped_spaces
from nni_proxyless.search.recipe import STRATEGIES
from nni_proxyless.strategies.arch_settings import ArchGradient, ObjectiveName


def test_names_in_the_help_are_those_of_the_registries() -> None:
    assert {name: tuple(inspect.signature(kind).parameters) for name, kind in BACKENDS.items()} == BACKEND_SETTINGS
    assert tuple(TOOLS) == TOOL_NAMES
    assert set(SOURCES) == set(choices.DATA)
    assert choices.STRATEGIES == STRATEGIES
    assert tuple(FILES) == choices.FORMATS
    assert choices.PUBLISHED == FORMATS
    assert get_args(ObjectiveName) == choices.OBJECTIVES
    assert get_args(ArchGradient) == choices.GRADIENTS
    assert choices.UNITS == command._UNITS
    assert choices.DTYPES == onnx_runtime.DTYPES
    assert choices.spaces() == list(shipped_spaces())


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (
            "search",
            ["mobilenetv2_cifar", "imagefolder", "gumbel_darts", "add_linear", "two_path", "ncnn", "quickstart"],
        ),
        ("run", ["quickstart", "baselines"]),
        ("latency measure", ["onnxruntime", "flops", "trtexec", "int8", "{ns,us,ms,s}", "mobilenetv2_imagenet"]),
        ("latency import", ["once-for-all"]),
        ("export", ["torch_export", "int8"]),
        ("trial", ["{search,retrain}"]),
        ("init", ["openvino", "mnn"]),
    ],
)
def test_the_help_names_the_choices(command: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    told = capsys.readouterr().out
    assert [name for name in names if name not in told] == []


def test_every_command_has_the_common_options() -> None:
    commands = dict(make_parser().commands())
    latency = commands["latency"]
    assert isinstance(latency, Parser)
    for parser in [*commands.values(), *latency.commands().values()]:
        known = parser._option_string_actions
        assert {"-v", "--verbose", "-q", "--quiet", "--debug"} <= set(known), parser.prog
