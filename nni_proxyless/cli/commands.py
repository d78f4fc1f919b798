"""The arguments of all commands. Making the parser does nothing else, and imports nothing slow."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

from .. import __version__
from ..decoding.budgets import QUANTITIES
from ..values import MOST_FINALISTS
from . import choices, completion, decode, front, init, installation, runs
from . import latency as cli_latency
from . import network as cli_network
from .outputs import output_folder
from .parser import Parser, positive, whole
from .plan_options import add_plan

_DEBUG = "show the traceback of an error"
_VERBOSE = "show more: each step, and the notices of NNI and Lightning"
_QUIET = "print only results, warnings and errors"


@functools.cache
def make_parser() -> Parser:
    """Make the parser of the command line."""
    common = Parser(add_help=False)
    _add_common(common, default=argparse.SUPPRESS)
    parser = Parser(
        prog="nni-proxyless",
        description="ProxylessNAS for Microsoft NNI.",
        epilog="Options of a command: nni-proxyless COMMAND --help. Tab completion: nni-proxyless completion --help.",
    )
    parser.add_argument("--version", action="version", version=f"nni-proxyless {__version__}")
    _add_common(parser, default=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(
        name: str, run: Any, text: str, example: str, group: Any = commands, more: str = ""
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = group.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"{more}example: {example}",
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    _add_running(command)
    _add_decode(command)
    cli_network.add_commands(commands, command)
    _add_installation(command)
    latency = commands.add_parser(
        "latency",
        help="Make, check and use latency tables of devices.",
        description="Make, check and use latency tables of devices.",
        parents=[common],
    )
    tables = latency.add_subparsers(dest="subcommand", required=True, metavar="COMMAND", parser_class=Parser)
    cli_latency.add_commands(tables, command)
    parser.elsewhere = {name: f"latency {name}" for name in latency.commands()}
    parser.elsewhere["help"] = "--help"
    latency.elsewhere = {name: f"nni-proxyless {name}" for name in parser.commands()}
    return parser


def _add_common(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument("--debug", action="store_true", default=default, help=_DEBUG)
    parser.add_argument("-v", "--verbose", action="store_true", default=default, help=_VERBOSE)
    parser.add_argument("-q", "--quiet", action="store_true", default=default, help=_QUIET)


def _add_running(command: Any) -> None:
    run = command(
        "run",
        runs.run_experiment,
        "Start an NNI experiment from an nnictl config, follow it and collect its results.",
        "nni-proxyless run experiments/quickstart/config.yml",
    )
    experiments = choices.listed(choices.experiments("config.yml"))
    config = run.add_argument("config", help=f"an nnictl config, or the name of a shipped experiment: {experiments}")
    config.completer = completion.configs
    run.add_argument("--port", type=whole(1, 65535), help="port of NNI's web UI (first free port from 8080)")
    run.add_argument("--host", help="further address on which NNI's manager listens, besides 127.0.0.1 (none)")
    run.add_argument("--keep", action="store_true", help="keep the manager and its web UI running")
    run.add_argument("--results", type=output_folder, help="folder of the results (results/<folder of the config>)")
    run.add_argument("--overwrite", action="store_true", help="replace the results of another recipe there")
    add_plan(run, "print what would be measured, searched and written, and how long it would take; write nothing")

    nnictl = command(
        "nnictl",
        runs.nnictl,
        "Run NNI's nnictl with a manager that listens on this machine only, unlike that of plain nnictl.",
        "nni-proxyless nnictl create --config experiments/remote/config.yml",
    )
    nnictl.add_argument("--host", help="further address on which the manager listens, besides 127.0.0.1 (none)")
    nnictl.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="arguments of nnictl")

    trial = command(
        "trial",
        runs.trial,
        "Run one search or retraining with the parameters that NNI sends: the trial command of an nnictl config.",
        "trialCommand: nni-proxyless trial --recipe recipe.yml",
    )
    trial.add_argument("--recipe", type=Path, required=True, help="the recipe that the parameters override")
    trial.add_argument("--task", choices=("search", "retrain"), default="search", help="kind of the recipe (search)")

    search = command(
        "search",
        runs.search,
        "Run one search without NNI's manager.",
        "nni-proxyless search experiments/quickstart/recipe.yml target=cpu_onnxruntime epochs=20",
        more=_names(),
    )
    experiments = choices.listed(choices.experiments("recipe.yml"))
    recipe = search.add_argument("recipe", help=f"a recipe, or the name of a shipped experiment: {experiments}")
    recipe.completer = completion.recipes
    settings = search.add_argument(
        "settings", nargs="*", metavar="key=value", help="override the recipe; of equal keys, the last one counts"
    )
    settings.completer = completion.search_settings
    search.add_argument(
        "--output", type=output_folder, help="folder of the results (results/<recipe's folder>/<target>)"
    )
    search.add_argument("--overwrite", action="store_true", help="replace the results of another recipe there")
    search.add_argument("--remeasure", action="store_true", help="measure the latency table again, even if one is kept")
    add_plan(search, "print what would be measured, trained and written, and how long it would take; write nothing")

    init.add_command(command)


def _names() -> str:
    """The names that settings of a search take."""
    rows = (
        ("space", (*choices.spaces(), "or the path of a file")),
        ("data", choices.DATA),
        ("strategy", (*choices.STRATEGIES, "or package.module:Class")),
        ("objective", choices.OBJECTIVES),
        ("arch_gradient", choices.GRADIENTS),
        ("backend of a target", choices.BACKENDS),
    )
    return "".join(f"{key}: {', '.join(names)}\n" for key, names in rows) + "all keys: docs/recipe.md\n\n"


def _add_decode(command: Any) -> None:
    made = command(
        "decode",
        decode.decode,
        "Find the most likely architecture within a budget, for the tables of any devices, from one search.",
        "nni-proxyless decode results/quickstart/cpu_torch --table phone.yml gpu.yml --budget-ms 40 --out decoded",
    )
    made.add_argument("checkpoint", type=Path, help="a checkpoint.ckpt, or the folder of a search's results")
    made.add_argument(
        "--table",
        type=Path,
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="latency tables, one for each device; the name is that of the file, or of the target of a search",
    )
    made.add_argument("--budget-ms", type=positive("milliseconds"), help="latency budget in milliseconds")
    made.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME<=LIMIT",
        help="budget of a table's latency or of a quantity, such as 'phone<=40', 'parameters<=250000' or "
        "'peak_memory<=256KiB'; may be repeated, and one network is within all of them",
    )
    made.add_argument(
        "--finalists",
        type=whole(2, MOST_FINALISTS),
        help="number of most likely networks to compare, with the weights and the data of the search",
    )
    made.add_argument("--out", type=output_folder, help="folder for the architecture files, each named like its table")
    made.add_argument(
        "--front",
        nargs="+",
        action=front.FileOrQuantities,
        metavar="FILE|QUANTITY",
        help="a CSV file for the fronts of all tables, likelihood against latency; or two or three quantities, whose "
        "front is written to --out: likelihood, accuracy (needs --finalists), names of tables, "
        + ", ".join(QUANTITIES),
    )
    made.add_argument(
        "--points",
        type=whole(1, MOST_FINALISTS),
        help=f"largest number of architecture files for a front in two or three quantities ({front.POINTS})",
    )
    made.set_defaults(quantities=())


def _add_installation(command: Any) -> None:
    register = command(
        "register",
        installation.register,
        "Add the tuner LatencyBudget to NNI's registry, for plain nnictl; `run` does it by itself.",
        "nni-proxyless register",
    )
    register.add_argument("--unregister", action="store_true", help="remove the tuner instead")

    schema = command(
        "schema",
        installation.schema,
        "Print the JSON schema of a recipe, which editors use to complete and check it.",
        "nni-proxyless schema recipe > recipe.schema.json",
    )
    schema.add_argument("kind", choices=("recipe", "retrain"), help="recipe of a search, or of a retraining")
    schema.add_argument("--markdown", action="store_true", help="print the table of the documentation instead")

    doctor = command(
        "doctor",
        installation.doctor,
        "Check the installation: versions, registry, port, write access, backends, known conflicts.",
        "nni-proxyless doctor",
    )
    doctor.add_argument("--port", type=whole(1, 65535), default=8080, help="port intended for NNI's web UI (8080)")

    shells = command(
        "completion",
        installation.completion,
        "Print the code that lets a shell complete commands, options, keys and names with the tab key.",
        'eval "$(nni-proxyless completion bash)"',
        more=(
            'bash: eval "$(nni-proxyless completion bash)" in ~/.bashrc\n'
            'zsh:  eval "$(nni-proxyless completion zsh)" in ~/.zshrc, after compinit\n'
            "fish: nni-proxyless completion fish | source, in ~/.config/fish/config.fish\n\n"
        ),
    )
    shells.add_argument("shell", choices=("bash", "zsh", "fish"), help="shell to complete in")
