"""Runs a program with limits: on its time and its output. It is stopped if this process ends, even if that is killed.

The program runs in a session of its own, below a shell. Beside it, a second shell waits for the end of a pipe that only
this process can write to. The pipe ends with this process, and then the second shell stops the session. This works
on every Unix, and costs no start of Python for each run. What the program leaves running in its session is stopped when
it ends. A daemon, which begins a session of its own, is left alone, such as the server of `adb`.
"""

from __future__ import annotations

import codecs
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..openmp import environment_to_measure
from . import stop_session as stopping
from .stop_session import stop_session

MOST_OUTPUT = 2**20  # bytes of each stream
_GRACE_S = 1.0
_PIECE = 2**16
# $1 is Python and $2 the program that stops the session, whose number is $$. The command follows.
_SHELL = """
exec 3<&0 </dev/null
( read -r _ <&3; "$1" -I "$2" "$$" || kill -KILL 0 ) >/dev/null 2>&1 &
watching=$!
exec 3<&-
shift 2
"$@"
code=$?
exec >/dev/null 2>&1
kill -KILL "$watching"
wait "$watching"
exit "$code"
"""


class ProgramTimeoutError(Exception):
    """The program did not end in time, and was stopped."""


class ProgramOutputError(Exception):
    """The program printed more than `MOST_OUTPUT` bytes, and was stopped."""


@dataclass(frozen=True)
class Finished:
    """Output and exit code of a program that has ended.

    Attributes:
        code: Exit code; 128 and the number of the signal if a signal has ended the program.
        output: Standard output, decoded; see `_text`.
        errors: Standard error output.
    """

    code: int
    output: str
    errors: str


def run_watched(
    words: Sequence[str],
    *,
    timeout_s: float,
    folder: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end, in a session of its own and without input.

    If the program ends while another process still has its output open, such as a server in the background that it has
    started, that process may print for another second. Then what was printed counts.

    Args:
        words: Program and arguments.
        timeout_s: Longest duration, in seconds.
        folder: Working directory. Defaults to that of this process.
        environment: Variables that are added to the environment of this process.

    Raises:
        ProgramTimeoutError: The program did not end in time.
        ProgramOutputError: The program printed more than `MOST_OUTPUT` bytes.
    """
    with subprocess.Popen(
        ["/bin/sh", "-c", _SHELL, "sh", sys.executable or "python3", str(Path(stopping.__file__).resolve()), *words],
        stdin=subprocess.PIPE,  # nothing is written to it: its end tells that this process has ended
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**environment_to_measure(os.environ), **(environment or {})},
        start_new_session=True,
    ) as process:
        try:
            output, errors = _printed(process, timeout_s)
        finally:
            stop_session(process.pid)
    return Finished(process.returncode, _text(output), _text(errors))


def _printed(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    """Read both streams until they end, or until the program has ended and the grace period is over."""
    assert process.stdout is not None
    assert process.stderr is not None
    streams = (process.stdout, process.stderr)
    kept = {stream: bytearray() for stream in streams}
    deadline = time.monotonic() + timeout_s
    ended = None
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if ended is None and process.poll() is not None:
                ended = now
            if ended is not None and now > ended + _GRACE_S:
                break
            if ended is None and now > deadline:
                raise ProgramTimeoutError
            for key, _ in selector.select(min(0.1, max(deadline - now, 0.0)) if ended is None else 0.1):
                stream = key.fileobj  # type: ignore[assignment]
                piece = os.read(key.fd, _PIECE)
                kept[stream] += piece
                if not piece:
                    selector.unregister(stream)
                if len(kept[stream]) > MOST_OUTPUT:
                    raise ProgramOutputError
    try:
        process.wait(max(deadline - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:  # it has closed its output
        raise ProgramTimeoutError from None
    return bytes(kept[process.stdout]), bytes(kept[process.stderr])


def _text(printed: bytes) -> str:
    """Decode UTF-8 or UTF-16. Bytes that are neither are taken as Latin-1, in which devices print `µs` and `±`."""
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        # Every other byte of UTF-16 in a Western language is zero. The mark of the byte order may be missing.
        body = printed.removeprefix(mark)
        zeros = body[1::2] if mark == codecs.BOM_UTF16_LE else body[::2]
        if zeros.count(0) > 0.9 * len(zeros) > 0:
            text = body.decode(name, errors="replace")
            break
    else:
        text = printed.decode("utf-8", errors="surrogateescape")
        text = re.sub("[\udc80-\udcff]", lambda byte: _latin(ord(byte[0]) - 0xDC00), text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _latin(byte: int) -> str:
    """Return the character of a byte in Latin-1. Its control characters, of which one ends a line, are replaced."""
    return chr(byte) if byte >= 0xA0 else "\ufffd"
