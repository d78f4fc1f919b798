"""Backend that runs a shell command of the user, which receives an ONNX file and prints the latency.

Example of a command:

    adb push {model} /data/local/tmp/m.onnx >/dev/null && adb shell /data/local/tmp/bench m.onnx
"""

from __future__ import annotations

import contextlib
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
from .base import Backend, Workload, one_of

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
# Matches a number that is not part of a word, optionally followed by its unit: 12.3, 12.3ms, avg=1.23e1.
_NUMBER = re.compile(r"(?<![\w.+-])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?=(?:ms|us|s)?\.?(?:[^\w.]|$))")


class CommandBackend(Backend):
    """Runs a shell command of the user for each sample.

    Args:
        threads: Number of threads; replaces `{threads}` in the command.
        batch: Number of images in a batch; replaces `{batch}` in the command.
        command: Shell command that prints the latency. The path of an ONNX file replaces `{model}`.
        pattern: Regular expression that finds the latency in the output of the command. Its only group is the number,
            and its last match counts. Defaults to the last number in the last line of the output.
        unit: Unit of the printed number: `us`, `ms` or `s`.
        timeout_s: Longest duration of a run, in seconds. A run that takes longer counts as failed.
        retries: Number of times that a failed run is repeated.
        device: Name of the measured device in the table.

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
        unit: str = "ms",
        timeout_s: float = 60.0,
        retries: int = 2,
        device: str | None = None,
    ) -> None:
        super().__init__(threads, batch)
        if not isinstance(command, str) or "{model}" not in command:
            raise InputError(
                "backend command needs a command with {model} in it, which becomes the path of an ONNX file, as in "
                f"'adb shell benchmark {{model}}'; got {command!r}"
            )
        one_of(self.name, "unit", unit, _UNITS)
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
        self.template = command
        self.pattern = pattern
        self.printed_unit = unit
        self.timeout_s = float(timeout_s)
        self.retries = retries
        self.device_name = device

    @property
    def version(self) -> str:
        return "as installed"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "command": self.template,
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

    def prepare(self, module: nn.Module, input_shape: tuple[int, ...]) -> Workload:
        return _CommandWorkload(self, export_onnx(module, input_shape, self.batch))

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = self.prepare(module, input_shape)
        return lambda: workload

    def file_loader(self, path: Path, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        workload = _CommandWorkload(self, path.read_bytes())
        return lambda: workload

    def run(self, model: Path) -> float:
        """Run the command on an ONNX file, and repeat it if it fails.

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
                return self._once(line)
            except RunError as reason:
                failure = str(reason)
        tries = f"{self.retries + 1} tries" if self.retries else "one try"
        raise RunError(f"the command failed in {tries}: {failure}. The command was: {line}")

    def _once(self, line: str) -> float:
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
        return self._parse(output)

    def _parse(self, output: str) -> float:
        lines = output.strip().splitlines()
        if not lines:
            raise RunError("it printed nothing; it must print the latency in milliseconds")
        if self.pattern is not None:
            found = re.findall(self.pattern, output)
            wanted = f"nothing that matches pattern {self.pattern!r}"
        else:
            found = _NUMBER.findall(lines[-1])
            wanted = "no number in its last line (if it is elsewhere, set pattern)"
        if not found:
            raise RunError(f"it printed {wanted}; the last line was: {lines[-1]}")
        try:
            milliseconds = float(found[-1]) * _UNITS[self.printed_unit]
        except ValueError:
            milliseconds = math.nan
        if not 0 < milliseconds < math.inf:
            raise RunError(f"it printed {found[-1]!r}, which is no positive latency")
        return milliseconds


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
        return self._backend.run(self._model)


def _stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
