"""The connection of a trial to NNI's manager.

NNI's SequentialExecutionEngine replaces the trial's command channel while a one-shot strategy runs, and overwrites the
trial's parameter record permanently. Therefore the channel and the record are saved before the strategy runs, and
metrics are sent through the saved ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import results_folder


class ManagerChannel:
    """Requests the trial's parameters when it is created, and sends metrics to the manager afterwards.

    Create it before torch is imported: NNI hands out parameters in the order of the requests (see docs/nni.md).

    Attributes:
        parameters: Parameters that the manager sent.

    Raises:
        RunError: The manager has no parameters for this trial.
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
        """Send an intermediate result.

        Args:
            metrics: Metrics of one epoch.
            number: Index of the result, counted from 0 without gaps; a resumed trial continues the count.
        """
        self._channel.send_metric("PERIODICAL", self._parameter_id, self._trial_id, number, dict(metrics))

    def final(self, metrics: Mapping[str, Any]) -> None:
        """Send the final result; each trial sends exactly one."""
        self._channel.send_metric("FINAL", self._parameter_id, self._trial_id, 0, dict(metrics))


def link_tensorboard(output: Path) -> None:
    """Link a local trial's logs to the folder that the TensorBoard button of NNI's web UI reads.

    NNI 3.0 reads `<experiment>/trials/<trial>/output/tensorboard`, but local trials write below
    `<experiment>/environments/local-env/trials/<trial>`. Trials of other training services are left alone.

    Args:
        output: Output folder of the trial.
    """
    trial = output.resolve()
    if os.environ.get("NNI_PLATFORM") != "local" or trial.parent.name != "trials":
        return
    seen = trial.parents[3] / "trials" / trial.name / "output" / results_folder.TENSORBOARD
    seen.parent.mkdir(parents=True, exist_ok=True)
    if not seen.is_symlink():
        seen.symlink_to(output / results_folder.TENSORBOARD, target_is_directory=True)
