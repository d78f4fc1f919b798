"""Server of `tests/warm.py`: it has imported large libraries, and forks a process for each request.

This is a program of its own: `python warm_server.py NAME OWNER` listens on the abstract socket NAME until the process
OWNER ends. Its standard input has the import path, as a list of JSON. A request is a line of JSON, sent together with
three file descriptors: standard input, output and error of the new process. The answers are two lines: the number of
the process and, when it has ended, its exit code. Whoever closes the connection before kills the process.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Mapping
from typing import Any

# This package and NNI are not among them: NNI reads environment variables when it is imported.
PRELOADED = (
    "torch", "torchvision", "torchmetrics", "pytorch_lightning", "torch.utils.tensorboard", "tensorboard.summary",
    "pandas", "scipy.optimize", "scipy.stats", "sklearn.datasets", "onnx", "onnxruntime", "tianshou.data", "gym",
    "matplotlib.figure", "jinja2", "pydantic", "yaml", "requests", "websockets", "psutil", "filelock", "tqdm",
    "json_tricks", "cloudpickle", "schema", "prettytable", "colorama", "simplejson", "responses", "typeguard",
    "pkg_resources",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_WORKER = "nni_proxyless.latency.worker"


def serve(name: str, owner: int) -> None:
    """Answer requests until the owner has ended. If another server has the name, end at once."""
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        try:
            listener.bind(f"\0{name}")
        except OSError:
            return
        listener.listen(64)  # requests wait until the imports are done
        for module in PRELOADED:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":  # as tests/conftest.py sets it where there is no GPU
            importlib.import_module("tests.quick_steps").make_steps_quick()
        gc.freeze()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(os.pidfd_open(owner), selectors.EVENT_READ, "owner")
        children: dict[int, tuple[int, socket.socket]] = {}  # by process id
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _accept(listener, selector, children)
                elif key.data == "owner":
                    return  # the kernel kills the children
                elif key.data in children:
                    _changed(key.data, key.fileobj, selector, children)


def _accept(
    listener: socket.socket, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]
) -> None:
    connection, _ = listener.accept()
    try:
        received, streams, _, _ = socket.recv_fds(connection, 2**16, 3)
        while received and not received.endswith(b"\n"):
            more = connection.recv(2**16)
            received = received + more if more else b""
        asked = json.loads(received)
    except (OSError, ValueError):
        connection.close()
        return
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        for key in list(selector.get_map().values()):
            os.close(key.fd)
        connection.close()
        _child(asked, streams, server)
    for stream in streams:
        os.close(stream)
    ends = os.pidfd_open(pid)
    children[pid] = ends, connection
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{pid}\n".encode())
    selector.register(ends, selectors.EVENT_READ, pid)
    selector.register(connection, selectors.EVENT_READ, pid)


def _changed(
    pid: int, source: Any, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]
) -> None:
    """A process has ended, or the other side has closed its connection."""
    ends, connection = children[pid]
    if source is connection:
        os.kill(pid, signal.SIGKILL)
        selector.unregister(connection)
        return
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    selector.unregister(ends)
    with contextlib.suppress(KeyError):
        selector.unregister(connection)
    os.close(ends)
    connection.close()
    del children[pid]


def _child(asked: Mapping[str, Any], streams: list[int], server: int) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of a background job would ignore Ctrl-C
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and those of `nohup make test` a closed terminal
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        tempfile.tempdir = None
        sys.modules["numpy"].random.seed()
        code = _exit_code(list(asked["words"]), asked.get("place"), server)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
            atexit._run_exitfuncs()
            sys.stdout.flush()
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code & 255)


def _exit_code(words: list[str], place: int | None, server: int) -> int:
    try:
        from tests import warm_changes

        warm_changes.apply(words, place)
        _run(words, server)
    except SystemExit as reason:
        if reason.code is None or isinstance(reason.code, int):
            return reason.code or 0
        print(reason.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    return 0


def _run(words: list[str], server: int) -> None:
    """Run `nni-proxyless` or `nnictl` with its arguments, or `python` with -c, -m or a script."""
    program, *rest = words
    sys.argv = list(words)
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if program == "nni-proxyless":
        from nni_proxyless.cli.entry import main

        main()
    if program == "nnictl":
        from nni.tools.nnictl.nnictl import parse_args

        sys.exit(parse_args())
    while rest[0] == "-W":
        warnings.simplefilter(rest[1])  # type: ignore[arg-type]
        del rest[:2]
    kind, what, *arguments = rest if rest[0] in ("-c", "-m") else ["script", *rest]
    sys.path.insert(0, os.path.dirname(os.path.abspath(what)) if kind == "script" else "")
    sys.argv = [{"-c": "-c", "-m": what}.get(kind, what), *arguments]
    if kind == "-c":
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), module.__dict__)
    elif kind == "-m":
        if what == _WORKER:
            sys.argv[1] = str(server)  # it ends with its parent, which is the server
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    sys.path[:] = json.load(sys.stdin)
    serve(sys.argv[1], int(sys.argv[2]))
