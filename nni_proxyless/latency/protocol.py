"""Measuring protocols: how long operators and networks are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Protocol:
    """Durations and number of samples of a measurement.

    Attributes:
        warmup_s: Approximate duration of the untimed warm-up of each workload before its first sample, in seconds.
        settle_s: Approximate duration of the untimed runs before each sample, in seconds. The workload always runs at
            least once untimed. Other workloads ran in between, whereas a device runs its network all the time.
        sample_s: Approximate duration of one timed sample, in seconds. A shorter run is repeated to fill it.
        min_rounds: Number of rounds over all workloads before sampling may stop.
        max_rounds: Largest number of rounds.
        max_relative_spread: Largest standard error of a median, as a fraction of the median. Sampling stops when every
            workload is within it.
        samples_per_turn: Number of consecutive samples that a workload takes in each round.
        reference_every_s: Shortest interval between two samples of the reference within a round, in seconds. With 0,
            the reference is sampled before every sample of a workload.
    """

    warmup_s: float = 0.005
    settle_s: float = 0.0005
    sample_s: float = 0.002
    min_rounds: int = 5
    max_rounds: int = 5
    max_relative_spread: float = 0.01
    samples_per_turn: int = 1
    reference_every_s: float = 0.1


OPERATOR_PROTOCOL = Protocol()


# Networks need more settling time than operators. With eleven other networks interleaved and one untimed run before
# each sample, networks were 6 % (PyTorch) to 14 % (ONNX Runtime) slower than when measured alone.
NETWORK_PROTOCOL = Protocol(
    settle_s=0.01,
    sample_s=0.015,
    min_rounds=2,
    max_rounds=4,
    max_relative_spread=0.004,
    samples_per_turn=3,
    reference_every_s=0.0,
)


# Two rounds are enough for calibration: it fits only a few parameters to a dozen networks, so the errors of single
# networks average out.
CALIBRATION_PROTOCOL = replace(NETWORK_PROTOCOL, max_rounds=2)
