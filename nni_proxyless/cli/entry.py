"""The `nni-proxyless` command: parses arguments, calls other modules and prints; holds no logic.

Exit codes: 0 success, 1 failed run, 2 bad input, 130 interrupted, 141 the reader of the output has ended, 143 ended by
SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ..errors import InputError, ProxylessError, clipped, os_error_of
from ..openmp import wait_briefly
from ..process_memory import is_out_of_memory
from ..progress import forget_messages, work_begins
from ..signals import ENDED_BY, INTERRUPTED, Stopped, left_word, stopped_by_signals
from ..training.ranks import is_main_process
from .commands import make_parser as make_parser
from .log import log_of_a_command
from .messages import LONGEST_LINE, MOST_OF_A_FAILURE, one_line
from .outputs import check_apart
from .parser import Parser
from .streams import CLOSED_PIPE, OutputError, flush_output, guarded_streams, say
from .suggest import unknown_option
from .terminal import painted

# Commands that go on from their last finished epoch if they are given again.
_RESUMED = ("search", "retrain")
build_parser = make_parser  # its name in version 0.1


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Settings of the form key=value may come before or after options.

    argparse alone accepts them in one place only.
    """
    parser = make_parser()
    if (unknown := unknown_option(parser, words)) is not None:
        here, message = unknown
        here.error(message)
    options, rest = parser.parse_known_args(words)
    late = [word for word in rest if not word.startswith("-")] if "settings" in options else []
    if len(late) < len(rest):
        named = filter(None, (options.command, getattr(options, "subcommand", None)))
        parser = Parser(prog=" ".join((parser.prog, *named)))  # its help has the arguments
        parser.error(f"unrecognized arguments: {shlex.join(word for word in rest if word not in late)}")
    if late:
        options.settings = [*options.settings, *late]
    if options.verbose and options.quiet:
        parser.error("--verbose and --quiet exclude each other; give one of them")
    return options


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; entry point of the console script. Ends the process with the exit code of the command.

    Args:
        arguments: Words of the command line; those of the process by default.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete

        argcomplete.autocomplete(make_parser())
    words = sys.argv[1:] if arguments is None else list(arguments)
    with guarded_streams(work_begins):
        options = parse(words)
        wait_briefly()
        with log_of_a_command(verbose=options.verbose, quiet=options.quiet), stopped_by_signals():
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
            goes_on = f"; continue from the last finished epoch with: {again}" if options.command in _RESUMED else ""
            if command == "latency measure":
                goes_on = f"; continue from the last sample with: {again}"
            if left := left_word(stop):
                goes_on = f"; {left}"
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


def _one_line(command: str, error: object) -> None:
    flush_output()
    most = LONGEST_LINE if isinstance(error, InputError) else MOST_OF_A_FAILURE
    start = f"nni-proxyless {command}: {painted('error', 'red', sys.stderr)}"
    say(one_line(start, error, most=most) + "\n")
