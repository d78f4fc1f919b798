"""Backend that runs a shell command of the user, which receives an ONNX file and prints the latency.

Example of a command:

    adb push {model} /data/local/tmp/m.onnx >/dev/null && adb shell /data/local/tmp/bench m.onnx
"""

from __future__ import annotations

import functools
import logging
import math
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, MissingDependencyError, RunError
from ...files.work_folder import WorkFolder
from ..device import Device
from ..protocol import Protocol
from ..tools.candidates import no_time_beside, unclear_beside, unit_beside, whole_number
from ..tools.labels import foreign_unit
from ..tools.plain import read_plain
from ..tools.quantity import milliseconds_per
from ..tools.reading import Reading, lines_of, reading, shown
from ..tools.registry import TOOLS, find_tool
from ..watched_program import MOST_OUTPUT, ProgramOutputError, ProgramTimeoutError, run_watched
from .base import Backend, Workload, one_of
from .command_line import MODEL_VARIABLE, check_command, shell_line
from .pattern_search import SearchError, last_match

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

_log = logging.getLogger(__name__)
_UNITS = ("ns", "us", "ms", "s")
_LONGEST_TIMEOUT_S = 7 * 24 * 3600.0
_MOST_RETRIES = 100
_LONGEST_PATTERN = 1000
_LONGEST_LINE = 20_000  # the readers of outputs need time that grows with its square


class CommandBackend(Backend):
    """Runs a shell command of the user for each sample.

    Args:
        threads: Number of threads; replaces `{threads}` in the command.
        batch: Number of images in a batch; replaces `{batch}` in the command.
        command: Shell command that prints the latency. The path of an ONNX file replaces `{model}`, as one word. It
            must not stand in quotes.
        pattern: Regular expression that finds the latency in the output of the command. Its only group is the number,
            and its last match on stdout counts, or on stderr if stdout has none.
        unit: Unit of a printed number that has no unit next to it: `ns`, `us`, `ms` or `s`. Defaults to `ms`.
        timeout_s: Longest duration of a run, in seconds. A run that takes longer counts as failed.
        retries: Number of times that a failed run is repeated.
        device: Name of the measured device in the table.
        tool: Name of the device tool that the command runs (`tools/registry.py`), whose output format is known. Without
            a tool and a pattern, the output is read by `tools.plain.read_plain`.

    Raises:
        InputError: The command lacks `{model}`, or another setting is invalid.
        MissingDependencyError: ONNX is not installed.
    """

    name = "command"
    clocked = False
    operator_protocol = Protocol(
        warmup_s=0.0, settle_s=0.0, sample_s=0.0, min_rounds=3, max_rounds=9, max_relative_spread=0.02
    )
    network_protocol = calibration_protocol = operator_protocol

    def __init__(
        self,
        threads: int = 1,
        batch: int = 1,
        command: str | None = None,
        pattern: str | None = None,
        unit: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 2,
        device: str | None = None,
        tool: str | None = None,
    ) -> None:
        super().__init__(threads, batch)
        command = check_command(command)
        if unit is not None:
            one_of(self.name, "unit", unit, _UNITS)
        if tool is not None:
            for label, value in (("pattern", pattern), ("unit", unit)):
                if value is not None:
                    raise InputError(
                        f"backend command: tool '{tool}' already finds the latency and its unit; "
                        f"remove tool or {label} {value!r}"
                    )
            try:
                tool = find_tool(tool)
            except InputError as reason:
                raise InputError(f"backend command: {reason}") from reason
        if not _number(timeout_s) or not 0 < timeout_s <= _LONGEST_TIMEOUT_S:
            raise InputError(
                f"backend command: timeout_s must be a positive number of seconds up to {_LONGEST_TIMEOUT_S:.0f}, got "
                f"{timeout_s!r:.100}"
            )
        if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= _MOST_RETRIES:
            raise InputError(
                f"backend command: retries must be a whole number from 0 to {_MOST_RETRIES}, got {retries!r:.100}"
            )
        if device is not None and not isinstance(device, str):
            raise InputError(f"backend command: device must be a name, got {device!r:.100}")
        if pattern is not None and (not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN):
            raise InputError(
                f"backend command: pattern must be a regular expression of at most {_LONGEST_PATTERN} characters, got "
                f"{pattern!r:.100}"
            )
        try:
            groups = None if pattern is None else re.compile(pattern).groups
        except (re.error, OverflowError, RecursionError) as reason:
            raise InputError(
                f"backend command: pattern {pattern!r:.100} is not a regular expression: {reason}"
            ) from reason
        if groups is not None and groups != 1:
            raise InputError(f"backend command: pattern must have one group, the number; {pattern!r:.100} has {groups}")
        try:
            import onnx  # noqa: F401
        except ImportError as reason:
            raise MissingDependencyError.of(reason, "backend command", "onnx", "onnx") from reason
        if threads != 1 and "{threads}" not in command:
            _warn_once(
                f"threads {threads} has no effect on the command, which has no {{threads}}; the table will say that it "
                f"was measured with {threads} threads"
            )
        self.template = command
        self.tool = tool
        self.pattern = pattern
        self.printed_unit = unit
        self.timeout_s = float(timeout_s)
        self.retries = retries
        self.device_name = device
        self._shown = False
        self._folder: WorkFolder | None = None

    @property
    def version(self) -> str:
        return "as installed"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "command": self.template,
            "tool": self.tool,
            "pattern": self.pattern,
            "unit": self.printed_unit,
            "timeout_s": self.timeout_s,
            "retries": self.retries,
            "device": self.device_name,
        }

    @property
    def device(self) -> Device:
        return Device(self.device_name or "not named", "whatever the command runs on", None)

    @property
    def command(self) -> str:
        return self.template

    @property
    def tool_name(self) -> str | None:
        return self.tool

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        from ...network.onnx_file import export_onnx

        return _CommandWorkload(self, export_onnx(module, input_shape, self.batch))

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = self.prepare(module, input_shape)
        return lambda: workload

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = _CommandWorkload(self, path.read_bytes())
        return lambda: workload

    def folder(self) -> Path:
        """Return the folder of the ONNX files. It exists as long as this backend."""
        if self._folder is None:
            self._folder = WorkFolder()
        return self._folder.path

    def run(self, model: Path, label: str = "") -> float:
        """Run the command on an ONNX file, and repeat it if it fails. The first latency is shown, as it was read.

        Args:
            model: Path of the ONNX file.
            label: Name of the operator or network, for error messages.

        Returns:
            Latency in milliseconds.

        Raises:
            RunError: Every attempt failed. The message includes the command and the reason of the last failure.
        """
        failure = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(0.5 * 2 ** (attempt - 1), 5.0))
            try:
                read = self._once(model)
            except RunError as reason:
                failure = str(reason)
                continue
            if not self._shown:
                self._shown = True
                self.note(f"first sample of the command{f', for {label}' if label else ''}: {read}")
            return read.milliseconds
        tries = f"{self.retries + 1} tries" if self.retries else "one try"
        what = f" for {label}" if label else ""
        raise RunError(f"the command failed in {tries}{what}: {failure}. The command was: {shown(self.template)}")

    def _once(self, model: Path) -> Reading:
        try:
            done = run_watched(
                ["/bin/sh", "-c", shell_line(self.template, self.threads, self.batch)],
                timeout_s=self.timeout_s,
                environment={MODEL_VARIABLE: str(model)},
            )
        except ProgramTimeoutError:
            raise RunError(
                f"no answer within timeout_s = {self.timeout_s:g} seconds (raise timeout_s if it needs longer)"
            ) from None
        except ProgramOutputError:
            raise RunError(
                f"it printed more than {MOST_OUTPUT // 2**10} KiB and was stopped; let it print the latency only, or "
                "its last lines (tail)"
            ) from None
        except OSError as reason:
            raise RunError(f"the shell cannot be started: {reason}") from reason
        if done.code != 0:
            said = (done.errors.strip() or done.output.strip() or "nothing").splitlines()[-1]
            raise RunError(f"exit code {done.code}; it said: {shown(said)}")
        read = self._read(done.output, done.errors)
        if not 0 < read.milliseconds < math.inf:
            raise RunError(
                f"it printed '{read.printed}', which is not a positive latency: the resolution of the tool may be too "
                "coarse for such a fast operator (let it print more digits or a smaller unit, or time many runs); the "
                f"line was: {read.line}"
            )
        return read

    def _read(self, output: str, errors: str) -> Reading:
        """Read the latency from what the command printed on stdout and on stderr."""
        if self.pattern is None:
            for line in (*output.splitlines(), *errors.splitlines()):
                if len(line) > _LONGEST_LINE:
                    raise RunError(
                        f"it printed a line of {len(line)} characters, and a line may have {_LONGEST_LINE}; set "
                        f"pattern, or let it print less; the line begins: {shown(line[:60])}"
                    )
            try:
                # Tools differ in which of the two streams they use, and some use both.
                return (
                    read_plain(output, errors, self.printed_unit)
                    if self.tool is None
                    else TOOLS[self.tool](f"{output}\n{errors}")
                )
            except (ArithmeticError, LookupError, RecursionError, ValueError) as reason:
                raise RunError(f"its output cannot be read: {shown(str(reason))}") from reason
        try:
            found = last_match(self.pattern, (output, errors))
        except SearchError as reason:
            raise RunError(f"pattern {self.pattern!r:.100} {reason}") from reason
        if found is not None:
            return self._matched((output, errors)[found[0]], *found[1:])
        lines = lines_of(output) or lines_of(errors)
        if not lines:
            raise RunError("it printed nothing; it must print the latency")
        raise RunError(
            f"it printed nothing that matches pattern {self.pattern!r:.100}; the last line was: {shown(lines[-1])}"
        )

    def _matched(self, text: str, start: int, end: int) -> Reading:
        """Convert the number that the pattern found, `text[start:end]`.

        Raises:
            RunError: The number has another unit than the setting says, or is a rate, a size or a percentage.
        """
        number, beside = text[start:end], unit_beside(text, start, end)
        line = text[text.rfind("\n", 0, start) + 1 :].splitlines()[0]
        whole = whole_number(text, start, end, self.pattern or "")
        if whole != number:
            raise RunError(
                f"pattern found '{shown(number)}', which is a part of the number '{shown(whole)}': let the group match "
                f"all of it, as in (\\S+); the line was: {shown(line)}"
            )
        unit = self.printed_unit or beside or "ms"
        if beside is not None and milliseconds_per(beside) != milliseconds_per(unit):
            raise RunError(
                f"pattern found '{shown(number)}' with the unit {beside} beside it, but unit is {unit}: remove unit, "
                f"or change pattern; the line was: {shown(line)}"
            )
        if beside is None and no_time_beside(text, end):
            raise RunError(
                f"pattern found '{shown(number)}', but what is next to it is not a unit of time: change pattern; "
                f"the line was: {shown(line)}"
            )
        named = foreign_unit(text) if beside is None and self.printed_unit is None else None
        reason = f"the output names the unit {named} elsewhere" if named else unclear_beside(text, start, end)
        if reason and beside is None and self.printed_unit is None:
            raise RunError(
                f"pattern found '{shown(number)}' without a unit beside it, and {reason}: set unit if it is a time; "
                f"the line was: {shown(line)}"
            )
        return reading(number.strip(), unit, "found by pattern", line)


class _CommandWorkload(Workload):
    """A workload that runs the command on a temporary ONNX file, which is deleted with the workload."""

    def __init__(self, backend: CommandBackend, model: bytes) -> None:
        super().__init__(lambda: self.sample(1))
        self._backend = backend
        folder = tempfile.mkdtemp(dir=backend.folder())
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._model = Path(folder) / "model.onnx"
        self._model.write_bytes(model)

    def sample(self, repeats: int) -> float:
        return self._backend.run(self._model, self.label)


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@functools.cache
def _warn_once(text: str) -> None:
    """Warn, but not again for each process and network that measures with the same settings."""
    _log.warning("warning: %s", text)
