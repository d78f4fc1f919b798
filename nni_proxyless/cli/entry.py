"""The `nni-proxyless` command: parses arguments, calls other modules and prints; holds no logic.

Exit codes: 0 success, 1 failed run, 2 bad input, 130 interrupted, 141 nobody reads the output any more, 143 ended by
SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import argparse
import errno
import functools
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..errors import InputError, ProxylessError, RunError, clipped, os_error_of
from ..process_memory import is_out_of_memory
from ..progress import forget_messages, work_begins
from ..signals import ENDED_BY, INTERRUPTED, Stopped, stopped_by_signals
from ..training.ranks import is_main_process
from ..values import MOST_FINALISTS
from . import latency as cli_latency
from . import network as cli_network
from . import runs
from .decode import decode_command
from .messages import LONGEST_LINE, MOST_OF_A_FAILURE, one_line
from .outputs import check_apart, output_file, output_folder
from .parser import Parser, positive, whole
from .streams import CLOSED_PIPE, OutputError, flush_output, guarded_streams, log_of_a_command, say

# Commands that go on from their last finished epoch if they are given again.
_RESUMED = ("search", "retrain")


@functools.cache
def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = Parser(prog="nni-proxyless", description="ProxylessNAS for Microsoft NNI.")
    parser.add_argument("--version", action="version", version=f"nni-proxyless {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Any, text: str, example: str, group: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = group.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: {example}",
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    run = command(
        "run",
        runs.run_experiment,
        "Start an NNI experiment from an nnictl config, follow it and collect its results.",
        "nni-proxyless run experiments/quickstart/config.yml",
    )
    run.add_argument("config", help="an nnictl config, or the name of a shipped experiment (quickstart)")
    run.add_argument("--port", type=whole(1, 65535), help="port of NNI's web UI (first free one from 8080)")
    run.add_argument("--host", help="address on which NNI's manager listens, besides 127.0.0.1 (no other)")
    run.add_argument("--keep", action="store_true", help="keep the manager and its web UI running")
    run.add_argument("--results", type=output_folder, help="where results go (results/<folder of the config>)")
    run.add_argument("--overwrite", action="store_true", help="replace the results of another recipe there")

    nnictl = command(
        "nnictl",
        runs.nnictl,
        "NNI's nnictl, whose manager, unlike that of plain nnictl, listens on this machine only.",
        "nni-proxyless nnictl create --config experiments/remote/config.yml",
    )
    nnictl.add_argument("--host", help="address on which the manager listens, besides 127.0.0.1 (no other)")
    nnictl.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="arguments of nnictl")

    trial = command(
        "trial",
        runs.trial,
        "The trial command of an nnictl config: one search or retraining with the parameters that NNI sends.",
        "trialCommand: nni-proxyless trial --recipe recipe.yml",
    )
    trial.add_argument("--recipe", type=Path, required=True, help="the recipe that the parameters override")
    trial.add_argument("--task", choices=("search", "retrain"), default="search", help="kind of the recipe (search)")

    search = command(
        "search",
        runs.search,
        "Run one search without NNI's manager.",
        "nni-proxyless search experiments/quickstart/recipe.yml target=cpu_onnxruntime epochs=20",
    )
    search.add_argument("recipe", help="a recipe, or the name of a shipped experiment (quickstart)")
    search.add_argument(
        "settings", nargs="*", metavar="key=value", help="override the recipe; of equal keys, the last one counts"
    )
    search.add_argument(
        "--output", type=output_folder, help="folder of the results (results/<recipe's folder>/<target>)"
    )
    search.add_argument("--overwrite", action="store_true", help="replace the results of another recipe there")
    search.add_argument("--remeasure", action="store_true", help="measure the latency table anew, if it is kept")

    decode = command(
        "decode",
        decode_command,
        "The most likely architecture within a budget, for any devices' tables, from the checkpoint of one search.",
        "nni-proxyless decode results/quickstart/cpu_torch --table phone.yml gpu.yml --budget-ms 40 --out decoded",
    )
    decode.add_argument("checkpoint", type=Path, help="a checkpoint.ckpt, or the folder of a search's results")
    decode.add_argument("--table", type=Path, nargs="+", default=[], help="latency tables, one for each device")
    decode.add_argument("--budget-ms", type=positive("milliseconds"), help="latency budget in milliseconds")
    decode.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="NAME<=LIMIT",
        help="budget of a table's latency or of a quantity, such as 'phone<=40', 'parameters<=250000' or "
        "'peak_memory<=256KiB'; may be repeated, and one network is within all of them",
    )
    decode.add_argument(
        "--finalists",
        type=whole(2, MOST_FINALISTS),
        help="compare this many of the likeliest networks with the search's weights and data",
    )
    decode.add_argument(
        "--out", type=output_folder, help="folder for the architecture files, each named like its table"
    )
    decode.add_argument(
        "--front", type=output_file, help="CSV file for the fronts of all tables, likelihood against latency"
    )

    cli_network.add_commands(commands, command)

    register = command(
        "register",
        _register,
        "Add the tuner LatencyBudget to NNI's registry, for plain nnictl; `run` does it by itself.",
        "nni-proxyless register",
    )
    register.add_argument("--unregister", action="store_true", help="remove it")

    schema = command(
        "schema",
        _schema,
        "Print the JSON schema of a recipe, which editors use to complete and check it.",
        "nni-proxyless schema recipe > recipe.schema.json",
    )
    schema.add_argument("kind", choices=("recipe", "retrain"), help="recipe of a search, or of a retraining")
    schema.add_argument("--markdown", action="store_true", help="print the table of the documentation instead")

    doctor = command(
        "doctor",
        _doctor,
        "Check the installation: versions, registry, port, write access, backends, known conflicts.",
        "nni-proxyless doctor",
    )
    doctor.add_argument("--port", type=whole(1, 65535), default=8080, help="port intended for NNI's web UI (8080)")

    latency = commands.add_parser(
        "latency", help="Latency tables of devices.", description="Latency tables of devices."
    )
    tables = latency.add_subparsers(dest="subcommand", required=True, metavar="COMMAND", parser_class=Parser)
    cli_latency.add_commands(tables, command)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Settings of the form key=value may stand before and after options.

    By itself, argparse takes them only in one place.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(words)
    late = [word for word in rest if "=" in word and not word.startswith("-")] if "settings" in options else []
    if len(late) < len(rest):
        named = filter(None, (options.command, getattr(options, "subcommand", None)))
        parser = Parser(prog=" ".join((parser.prog, *named)))  # its help has the arguments
        parser.error(f"unrecognized arguments: {shlex.join(word for word in rest if word not in late)}")
    if late:
        options.settings = [*options.settings, *late]
    return options


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; entry point of the console script. Ends the process with the exit code of the command.

    Args:
        arguments: Words of the command line; those of the process by default.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    with guarded_streams(work_begins):
        options = parse(words)
        with log_of_a_command(), stopped_by_signals():
            sys.exit(_exit_code(options, words))


def _exit_code(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Run a command, and say in one line why it failed."""
    command = " ".join(filter(None, (options.command, getattr(options, "subcommand", None))))
    try:
        check_apart(options)
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except ProxylessError as error:
        if options.debug:
            raise
        return _refused_or_failed(command, error)
    except KeyboardInterrupt as stop:
        work_begins()
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
        if is_main_process():
            ended = f"{ENDED_BY}{stop}" if isinstance(stop, Stopped) else INTERRUPTED
            again = shlex.join(["nni-proxyless", *words])
            goes_on = f"; go on from the last finished epoch with: {again}" if options.command in _RESUMED else ""
            if command == "latency measure":
                goes_on = f"; go on from the last sample with: {again}"
            say(f"nni-proxyless {command}: {ended}{goes_on}\n")
        return 128 + number
    except OutputError as error:
        if error.errno == errno.EPIPE:
            return CLOSED_PIPE
        work_begins()
        _one_line(command, f"cannot write to the standard output: {error.strerror}")
        return 1
    except Exception as error:
        if options.debug:
            raise
        if (told := os_error_of(error)) is not None:
            return _refused_or_failed(command, told)
        work_begins()
        if is_out_of_memory(error):
            less = "; a smaller batch_size needs less" if options.command in _RESUMED else ""
            _one_line(command, f"out of memory ({clipped(str(error)) or type(error).__name__}){less}")
            return 1
        # The log gets the traceback first, so that the last line of the output says what happened.
        logging.getLogger(__name__).error("unexpected error", exc_info=True)
        _one_line(command, f"{type(error).__name__}: {error} (please report it with the log above)")
        return 1


def _refused_or_failed(command: str, error: ProxylessError) -> int:
    """Say in one line why a command ends. Of input that was refused, nothing else is said."""
    refused = isinstance(error, InputError)
    if refused:
        forget_messages()
    else:
        work_begins()
    _one_line(command, error)
    return 2 if refused else 1


def _register(options: argparse.Namespace) -> int:
    from ..nni_bridge import registration

    done = registration.unregister() if options.unregister else registration.register()
    sys.stdout.write(f"tuner {registration.TUNER}: {done}\n")
    return 0


def _schema(options: argparse.Namespace) -> int:
    import json

    from ..deploy.retrain_recipe import RetrainRecipe
    from ..files.settings import Settings, markdown_table
    from ..search.recipe import Recipe

    kinds: dict[str, type[Settings]] = {"recipe": Recipe, "retrain": RetrainRecipe}
    settings = kinds[options.kind]
    if options.markdown:
        sys.stdout.write(markdown_table(settings) + "\n")
        return 0
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **settings.model_json_schema()}
    sys.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from ..nni_bridge import doctor

    findings = doctor.examine(options.port)
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.flush()
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise RunError(f"{errors} problem{'s' if errors > 1 else ''} to fix before a search works")
    return 0


def _one_line(command: str, error: object) -> None:
    flush_output()
    most = LONGEST_LINE if isinstance(error, InputError) else MOST_OF_A_FAILURE
    say(one_line(f"nni-proxyless {command}: error", error, most=most) + "\n")
