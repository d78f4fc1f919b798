"""The log of a command on standard error: how much it says, and what of other packages it leaves out."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator

from ..progress import HeldMessages, quiet_progress, write_above_bars
from .terminal import painted

_log = logging.getLogger("nni_proxyless")


class _Handler(HeldMessages):
    """Holds messages until the work begins, and writes them above the progress bars if there are any."""

    def show(self, record: logging.LogRecord) -> None:
        try:
            write_above_bars(self.format(record))
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    """The message alone; with a colour for warnings and errors on a terminal, and the module with `--verbose`."""

    def __init__(self, verbose: bool) -> None:
        super().__init__("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno < logging.WARNING:
            return text
        return painted(text, "yellow" if record.levelno < logging.ERROR else "red", sys.stderr)


@contextlib.contextmanager
def log_of_a_command(*, verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """Print our log to standard error, and silence messages of other packages that a user cannot act on.

    Messages wait until the input has been accepted. Afterwards our logger is as before, for programs that call `main`
    themselves.

    Args:
        verbose: Whether details are printed too, and the notices of NNI and Lightning.
        quiet: Whether only warnings and errors are printed, and no progress.
    """
    before = _log.handlers, _log.propagate, _log.level
    # The handler is added to our own logger instead of the root logger: NNI's handler would print every line again.
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter(verbose))
    _log.handlers, _log.propagate = [handler], False
    _log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO if verbose else logging.WARNING)
    with contextlib.suppress(ImportError):
        # gym, which NNI's ENAS needs, prints at import that it is unmaintained and should be replaced.
        from gym_notices import notices

        notices.notices.clear()
    for message in (".*pkg_resources.*", ".*is found to be not a nn.Module.*"):
        warnings.filterwarnings("ignore", message=message)
    try:
        with quiet_progress(quiet):
            yield
    finally:
        handler.print_held()
        _log.handlers, _log.propagate = before[:2]
        _log.setLevel(before[2])
