"""Mistyped commands, options and settings: the message names what was probably meant."""

from __future__ import annotations

import pytest

from nni_proxyless.cli.entry import main, parse
from nni_proxyless.cli.settings import parse_settings
from nni_proxyless.errors import InputError


def told(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 500
    return line


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("serach quickstart", "did you mean 'search'?"),
        ("measure", "did you mean 'latency measure'?"),
        ("latency mesure", "did you mean 'measure'?"),
        ("latency retrain x", "did you mean 'nni-proxyless retrain'?"),
        ("help", "did you mean '--help'?"),
        ("schema recip", "did you mean 'recipe'?"),
        ("search quickstart --ouput x", "did you mean '--output'?"),
        ("search --ouput=x quickstart", "did you mean '--output'?"),
        ("latency measure --spcae mobilenetv2_digits", "did you mean '--space'?"),
        ("search quickstart --epochs 3", "did you mean 'epochs=3'?"),
        ("search --epochs 3 quickstart", "did you mean 'epochs=3'?"),
        ("search quickstart --epcohs=3", "did you mean 'epochs=3'?"),
        ("search quickstart --budget-ms 5", "did you mean 'budget_ms=5'?"),
        ("search quickstart --arch-gradient", "did you mean 'arch_gradient=…'?"),
        ("search quickstart epcohs=3", "did you mean 'epochs'?"),
        ("search quickstart epochs 3", "did you mean 'epochs=3'?"),
        ("retrain some.json --learning-rate 0.1", "did you mean 'learning_rate=0.1'?"),
        ("run quickstart --epochs 3", "'epochs' belongs in the recipe, or in the searchSpace"),
        ("search quickstart -v --quiet", "--verbose and --quiet exclude each other"),
    ],
)
def test_what_was_meant_is_named(words: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert meant in told(words, capsys)


@pytest.mark.parametrize("words", ["run quickstart --colour", "search quickstart --xyz 3", "qqqq"])
def test_nothing_is_suggested_for_what_resembles_nothing(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in told(words, capsys)


def test_beginnings_of_options_and_words_of_nnictl_stay_as_they_are() -> None:
    assert parse(["search", "r.yml", "--over"]).overwrite
    assert parse(["nnictl", "create", "--config", "c.yml", "--colour"]).words[-1] == "--colour"


@pytest.mark.parametrize("words", ["-v search r.yml", "search -v r.yml", "search r.yml --verbose"])
def test_verbose_stands_before_or_after_the_command(words: str) -> None:
    options = parse(words.split())
    assert (options.verbose, options.quiet, options.debug) == (True, False, False)


@pytest.mark.parametrize("words", [["epochs", "3"], ["epochs", "=", "3"], ["epochs:", "3"], ["epochs:3"]])
def test_settings_without_an_equals_sign(words: list[str]) -> None:
    with pytest.raises(InputError, match="did you mean 'epochs=3'"):
        parse_settings(words)
