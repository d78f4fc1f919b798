"""Trials of NNI's manager that start warm, as the commands of `tests/warm.py` do.

A trial imports PyTorch, Lightning and NNI, which takes longer than a search in a small space. Here the manager starts a
small program in its place. The program asks the process of the tests for a warm process with its own arguments, working
directory, environment and output, and ends with its exit code. Killing the program kills the warm process. The warm
process is not a descendant of the manager, so tests that kill managers use ordinary trials.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socketserver
import sys
import threading
import uuid
from pathlib import Path

from tests.warm import TRIALS, WarmProcess

# The program has the name of the command, and runs the command itself unless it is `trial`.
_PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

if sys.argv[1:2] != ["trial"]:
    os.execv({command!r}, [{command!r}, *sys.argv[1:]])
asked = socket.socket(socket.AF_UNIX)
asked.connect(chr(0) + os.environ["{variable}"])
lines = asked.makefile("rw")

def say(content):
    lines.write(json.dumps(content) + "\\n")
    lines.flush()

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, _: say(number))
say({{"words": ["nni-proxyless", *sys.argv[1:]], "folder": os.getcwd(), "environment": dict(os.environ),
     "process": os.getpid()}})
code = int(lines.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Trial(socketserver.StreamRequestHandler):
    """Runs one trial: passes signals on, kills it when the program is gone, and answers with its exit code."""

    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        streams = [Path(f"/proc/{asked['process']}/fd/{number}") for number in (1, 2)]
        process = WarmProcess(asked["words"], Path(asked["folder"]), asked["environment"], streams)
        with selectors.DefaultSelector() as selector:
            selector.register(self.rfile, selectors.EVENT_READ)
            selector.register(process.sentinel, selectors.EVENT_READ)
            while (code := process.poll()) is None:
                if any(key.fileobj is self.rfile for key, _ in selector.select()):
                    line = self.rfile.readline()
                    process.send_signal(signal.Signals(json.loads(line)) if line else signal.SIGKILL)
                    if not line:
                        selector.unregister(self.rfile)
        self.wfile.write(f"{code}\n".encode())


def start_warm_trials(folder: Path, environment: dict[str, str]) -> None:
    """Change an environment so that trials of NNI's manager start warm.

    Args:
        folder: Folder for the program, which is created.
        environment: Environment variables of the command that starts the manager. `PATH` and one more are changed.
    """
    folder.mkdir()
    command = Path(sys.executable).parent / "nni-proxyless"
    program = folder / "nni-proxyless"
    program.write_text(_PROGRAM.format(python=sys.executable, command=str(command), variable=TRIALS))
    program.chmod(0o755)
    name = f"nni-proxyless-tests-{uuid.uuid4().hex}"  # in Linux' abstract namespace, where no file is left
    server = _Server(f"\0{name}", _Trial)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment[TRIALS] = name
    environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])
