"""A trial's line to NNI's manager, kept apart from what a one-shot strategy does to it.

NNI's SequentialExecutionEngine replaces the trial's command channel while a strategy runs, and overwrites the
parameter record for good. So both are taken before, and metrics are sent on the kept ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError


class ManagerChannel:
    """Asks the manager for parameters at once, then reports to it.

    Create it before torch is imported: NNI hands parameters out in the order of requests (see docs/nni.md).

    Attributes:
        parameters: What the manager sent.
    """

    def __init__(self) -> None:
        import nni
        import nni.trial
        from nni.runtime.trial_command_channel import get_default_trial_command_channel

        received = nni.get_next_parameter()
        if received is None:
            raise RunError("NNI's manager has no parameters for this trial")
        record = nni.trial._params
        assert record is not None
        self.parameters: dict[str, Any] = dict(received)
        self._parameter_id = record["parameter_id"]
        self._channel = get_default_trial_command_channel()
        self._trial_id = os.environ["NNI_TRIAL_JOB_ID"]

    def intermediate(self, metrics: Mapping[str, float], number: int) -> None:
        """Send an intermediate result; they are numbered from 0 without gaps, also by a trial that was interrupted."""
        self._channel.send_metric("PERIODICAL", self._parameter_id, self._trial_id, number, dict(metrics))

    def final(self, metrics: Mapping[str, Any]) -> None:
        """Send the one final result."""
        self._channel.send_metric("FINAL", self._parameter_id, self._trial_id, 0, dict(metrics))


def link_tensorboard(output: Path) -> None:
    """Make the logs visible to the TensorBoard button of NNI's web UI, where the trial runs locally.

    NNI 3.0 looks into `<experiment>/trials/<trial>/output/tensorboard`, but local trials write below
    `<experiment>/environments/local-env/trials/<trial>`.
    """
    trial = output.resolve()
    if os.environ.get("NNI_PLATFORM") != "local" or trial.parent.name != "trials":
        return
    seen = trial.parents[3] / "trials" / trial.name / "output" / "tensorboard"
    seen.parent.mkdir(parents=True, exist_ok=True)
    if not seen.is_symlink():
        seen.symlink_to(output / "tensorboard", target_is_directory=True)
