"""The list of an experiment's trials that NNI's manager returns.

NNI's own client fails on trials that a user has made by hand ("customized trial" in the web UI), because the manager
leaves out some of their fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class HyperParameters:
    """Parameters that the manager has for a trial."""

    parameters: dict[str, Any]
    parameter_source: str = "algorithm"


@dataclass(frozen=True)
class Job:
    """A trial. The names are those of NNI's TrialJob.

    Attributes:
        trialJobId: NNI's id of the trial.
        status: NNI's status of the trial, such as `SUCCEEDED`.
        sequenceId: Number of the trial, counted from 0.
        hyperParameters: Its parameters; empty until the manager has them.
    """

    trialJobId: str
    status: str
    sequenceId: int
    hyperParameters: list[HyperParameters] = field(default_factory=list)

    @property
    def by_hand(self) -> bool:
        """Whether a user has made the trial, and not the tuner."""
        return bool(self.hyperParameters) and self.hyperParameters[0].parameter_source == "customized"

    @classmethod
    def parse(cls, described: Mapping[str, Any]) -> Job:
        """Make a job from the manager's description of it."""
        found = []
        for text in described.get("hyperParameters") or []:
            content = json.loads(text) if isinstance(text, str) else text
            parameters = content.get("parameters") if isinstance(content, Mapping) else None
            if isinstance(parameters, Mapping):
                found.append(HyperParameters(dict(parameters), str(content.get("parameter_source", "algorithm"))))
        return cls(str(described["trialJobId"]), str(described["status"]), int(described.get("sequenceId", -1)), found)


def list_jobs(experiment: Any) -> list[Job]:
    """Return all trials of a running experiment, in the order in which they were started.

    Args:
        experiment: NNI's experiment.

    Raises:
        requests.RequestException: The manager does not answer.
    """
    from nni.experiment import rest

    listed = rest.get(experiment.port, "/trial-jobs", experiment.url_prefix)
    return sorted(map(Job.parse, listed), key=lambda job: job.sequenceId)
