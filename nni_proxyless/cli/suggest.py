"""Suggestions for mistyped options and settings. They are made only after a mistake, so they may import the recipes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import takewhile

from .parser import Parser, closest

_SETTINGS_OF = {"search": "recipe", "retrain": "retrain", "run": "recipe"}  # commands whose recipes have keys


def unknown_option(parser: Parser, words: Sequence[str]) -> tuple[Parser, str] | None:
    """Look for an option that the command of a command line does not have.

    argparse would first miss the arguments that such an option stands for.

    Args:
        parser: Parser of the command line.
        words: Words of the command line.

    Returns:
        The parser of the command, and the message; `None` if all options are known.
    """
    here = parser
    path: list[str] = []
    before_double_dash = list(takewhile(lambda word: word != "--", words))
    for number, word in enumerate(before_double_dash):
        if word.startswith("--"):
            if not here.takes(word):
                return here, f"unrecognized arguments: {shlex.quote(word)}{_hint(here, path, words[number:])}"
        elif word in here.commands():
            chosen = here.commands()[word]
            assert isinstance(chosen, Parser)
            here = chosen
            path.append(word)
            if word == "nnictl":  # what follows are options of nnictl
                return None
        elif here.commands():
            return None  # argparse names the commands
    return None


def _hint(parser: Parser, path: Sequence[str], words: Sequence[str]) -> str:
    option, _, value = words[0].partition("=")
    if not value:
        following = words[1] if len(words) > 1 else ""
        value = following if following and not following.startswith("-") and "=" not in following else "…"
    if not path and (command := closest(option.lstrip("-"), parser.commands())):
        return f"; did you mean '{command}'? Commands are given without dashes"
    kind = _SETTINGS_OF.get(path[0] if path else "")
    keys = _keys(kind) if kind else ()
    name = option.lstrip("-").replace("-", "_")
    if name not in keys and (close := closest(option, parser.option_names())):
        return f"; did you mean '{close}'?"
    key = name if name in keys else closest(name, keys)
    if key is None:
        return ""
    if path[0] == "run":
        return f"; '{key}' belongs in the recipe, or in the searchSpace of the config"
    return f"; did you mean '{key}={value}'? Settings are given without dashes"


def _keys(kind: str) -> tuple[str, ...]:
    from ..deploy.retrain_recipe import RetrainRecipe
    from ..search.recipe import Recipe

    return Recipe.keys() if kind == "recipe" else RetrainRecipe.keys()
