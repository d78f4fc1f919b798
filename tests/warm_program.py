"""Program that runs its arguments in a warm process (tests/warm_server.py), for programs that start others.

`python -IS warm_program.py PROGRAM ARGUMENTS...` passes its standard streams, environment and working directory to the
warm process, passes signals on, and ends with its exit code. Killing it kills the warm process. It imports little,
because it runs often.
"""

import json
import os
import signal
import socket
import sys

_SERVER = "NNI_PROXYLESS_TESTS_SERVER"
_PYTHON = "NNI_PROXYLESS_TESTS_PYTHON"  # of tests/warm_changes.py
WORKER = "nni_proxyless.latency.worker"


def is_warm(arguments: list[str]) -> bool:
    """Whether Python runs these arguments in a warm process: NNI, a measuring process or, if asked for, all code."""
    if arguments[:1] == ["-W"]:
        arguments = arguments[2:]
    if _PYTHON in os.environ:
        return arguments[:1] not in ([], ["-"])  # not code from the standard input
    return arguments[:2] in (["-m", "nni"], ["-m", WORKER])


def main() -> None:
    program, *arguments = sys.argv[1:]
    if program == "python" and not is_warm(arguments):
        os.execv(sys.executable, [sys.executable, *arguments])
    if WORKER in arguments:
        # As the measuring process that it replaces does (`nni_proxyless.latency.parent_process`).
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect("\0" + os.environ[_SERVER])
    except OSError:  # there is no server yet, because this is the first process
        os.execv(sys.executable, [sys.executable, "-W", "ignore", *arguments])
    asked = {
        "words": [program, *arguments], "folder": os.getcwd(), "environment": dict(os.environ), "place": os.getpid(),
    }  # fmt: skip
    line = json.dumps(asked).encode() + b"\n"
    sent = socket.send_fds(connection, [line], [0, 1, 2])
    connection.sendall(line[sent:])
    answers = connection.makefile()
    process = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: os.kill(process, received))
    for stream in (0, 1, 2):
        os.close(stream)
    code = int(answers.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
