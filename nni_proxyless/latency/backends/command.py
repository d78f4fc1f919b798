"""Backend that runs a shell command of the user, which receives an ONNX file and prints the latency.

Example of a command:

    adb push {model} /data/local/tmp/m.onnx >/dev/null && adb shell /data/local/tmp/bench m.onnx
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ...errors import InputError, MissingDependencyError, RunError
from ...network.onnx_file import export_onnx
from ..device import Device
from ..protocol import Protocol
from ..tools.candidates import no_time_beside, unit_beside
from ..tools.plain import read_plain
from ..tools.quantity import milliseconds_per
from ..tools.reading import Reading, lines_of, reading, shown
from ..tools.registry import TOOLS, find_tool
from .base import Backend, Workload, one_of

_log = logging.getLogger(__name__)
_UNITS = ("ns", "us", "ms", "s")


class CommandBackend(Backend):
    """Runs a shell command of the user for each sample.

    Args:
        threads: Number of threads; replaces `{threads}` in the command.
        batch: Number of images in a batch; replaces `{batch}` in the command.
        command: Shell command that prints the latency. The path of an ONNX file replaces `{model}`.
        pattern: Regular expression that finds the latency in the output of the command. Its only group is the number,
            and its last match on stdout counts, or on stderr if stdout has none.
        unit: Unit of a printed number that has no unit beside it: `ns`, `us`, `ms` or `s`. Defaults to `ms`.
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
        if not isinstance(command, str) or "{model}" not in command:
            raise InputError(
                "backend command needs a command with {model} in it, which becomes the path of an ONNX file, as in "
                f"'adb shell benchmark {{model}}'; got {command!r}"
            )
        if unit is not None:
            one_of(self.name, "unit", unit, _UNITS)
        if tool is not None:
            for label, value in (("pattern", pattern), ("unit", unit)):
                if value is not None:
                    raise InputError(
                        f"backend command: tool '{tool}' knows where its output has the latency and in which unit; "
                        f"remove tool or {label} {value!r}"
                    )
            try:
                tool = find_tool(tool)
            except InputError as reason:
                raise InputError(f"backend command: {reason}") from reason
        if not isinstance(timeout_s, (int, float)) or isinstance(timeout_s, bool) or not 0 < timeout_s < math.inf:
            raise InputError(f"backend command: timeout_s must be a positive number of seconds, got {timeout_s!r}")
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise InputError(f"backend command: retries must be a whole number from 0, got {retries!r}")
        try:
            groups = None if pattern is None else re.compile(pattern).groups
        except (re.error, TypeError) as reason:
            raise InputError(f"backend command: pattern {pattern!r} is no regular expression: {reason}") from reason
        if groups is not None and groups != 1:
            raise InputError(f"backend command: pattern must have one group, the number; {pattern!r} has {groups}")
        try:
            import onnx  # noqa: F401
        except ImportError as reason:
            raise MissingDependencyError(
                "backend command needs the package 'onnx': pip install 'nni-proxyless[onnx]'"
            ) from reason
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
        return _CommandWorkload(self, export_onnx(module, input_shape, self.batch))

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = self.prepare(module, input_shape)
        return lambda: workload

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = _CommandWorkload(self, path.read_bytes())
        return lambda: workload

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
        line = self.template
        for key, value in (("model", shlex.quote(str(model))), ("threads", self.threads), ("batch", self.batch)):
            line = line.replace("{" + key + "}", str(value))
        failure = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(0.5 * 2 ** (attempt - 1), 5.0))
            try:
                read = self._once(line)
            except RunError as reason:
                failure = str(reason)
                continue
            if not self._shown:
                self._shown = True
                self.note(f"first sample of the command{f', for {label}' if label else ''}: {read}")
            return read.milliseconds
        tries = f"{self.retries + 1} tries" if self.retries else "one try"
        what = f" for {label}" if label else ""
        raise RunError(f"the command failed in {tries}{what}: {failure}. The command was: {line}")

    def _once(self, line: str) -> Reading:
        # The command gets its own session, so that a command that hangs can be stopped with all its child processes.
        with subprocess.Popen(
            line,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=self.timeout_s)
            except subprocess.TimeoutExpired:
                _stop(process)
                raise RunError(
                    f"no answer within timeout_s = {self.timeout_s:g} seconds (raise timeout_s if it needs longer)"
                ) from None
            except BaseException:
                _stop(process)
                raise
        if process.returncode != 0:
            said = (errors.strip() or output.strip() or "nothing").splitlines()[-1]
            raise RunError(f"exit code {process.returncode}; it said: {said}")
        read = self._read(output, errors)
        if not 0 < read.milliseconds < math.inf:
            raise RunError(
                f"it printed '{read.printed}', which is no positive latency: the resolution of the tool may be too "
                "coarse for so fast an operator (let it print more digits or a smaller unit, or time many runs); the "
                f"line was: {read.line}"
            )
        return read

    def _read(self, output: str, errors: str) -> Reading:
        """Read the latency from what the command printed on stdout and on stderr."""
        if self.tool is not None:
            # Tools differ in which of the two they use, and some use both.
            return TOOLS[self.tool](f"{output}\n{errors}")
        if self.pattern is None:
            return read_plain(output, errors, self.printed_unit)
        for text in (output, errors):
            found = [match for match in re.finditer(self.pattern, text) if match[1]]
            if found:
                return self._matched(text, found[-1])
        lines = lines_of(output) or lines_of(errors)
        if not lines:
            raise RunError("it printed nothing; it must print the latency")
        raise RunError(
            f"it printed nothing that matches pattern {self.pattern!r}; the last line was: {shown(lines[-1])}"
        )

    def _matched(self, text: str, match: re.Match[str]) -> Reading:
        """Convert the number that the pattern found.

        Raises:
            RunError: The number has another unit than the setting says, or is a rate, a size or a percentage.
        """
        beside = unit_beside(text, *match.span(1))
        line = text[text.rfind("\n", 0, match.start(1)) + 1 :].splitlines()[0]
        unit = self.printed_unit or beside or "ms"
        if beside is not None and milliseconds_per(beside) != milliseconds_per(unit):
            raise RunError(
                f"pattern found '{match[1]}' with the unit {beside} beside it, but unit is {unit}: remove unit, or "
                f"change pattern; the line was: {shown(line)}"
            )
        if beside is None and no_time_beside(text, match.end(1)):
            raise RunError(
                f"pattern found '{match[1]}', but what stands beside it is no unit of time: change pattern; the line "
                f"was: {shown(line)}"
            )
        return reading(match[1].strip(), unit, "found by pattern", line)


class _CommandWorkload(Workload):
    """A workload that runs the command on a temporary ONNX file, which is deleted with the workload."""

    def __init__(self, backend: CommandBackend, model: bytes) -> None:
        super().__init__(lambda: self.sample(1))
        self._backend = backend
        folder = tempfile.mkdtemp(prefix="nni-proxyless-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._model = Path(folder) / "model.onnx"
        self._model.write_bytes(model)

    def sample(self, repeats: int) -> float:
        return self._backend.run(self._model, self.label)


def _stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@functools.cache
def _warn_once(text: str) -> None:
    """Warn, but not again for each process and network that measures with the same settings."""
    _log.warning("warning: %s", text)
