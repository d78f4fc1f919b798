"""Output of native libraries, which write to the process's standard output past `sys.stdout`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def captured_output() -> Iterator[Callable[[], str]]:
    """Context manager that captures what native code writes to standard output.

    A measuring process reports to its parent over standard output, so nothing else may write there.

    Yields:
        Function that returns the text written so far, to be called before the manager ends.
    """
    _flush()
    with tempfile.TemporaryFile() as file:

        def written() -> str:
            _flush()
            file.seek(0)
            return file.read().decode(errors="replace")

        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            yield written
        finally:
            _flush()
            os.dup2(kept, 1)
            os.close(kept)


def _flush() -> None:
    sys.stdout.flush()
    library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    library.fflush(None)
