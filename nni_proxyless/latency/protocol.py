"""How long operators and networks are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        warmup_s: Each workload runs untimed for about this long before the first round, in seconds.
        settle_s: It runs untimed for about this long, but at least once, before each sample, in seconds: others ran in
            between, and a device runs its network all the time.
        sample_s: A timed sample repeats a short run until about this long, in seconds.
        min_rounds: Rounds over all workloads before the spread is looked at.
        max_rounds: Rounds at most.
        max_relative_spread: Enough when the standard error of every median is below this part of it.
        samples_per_turn: Samples in a row when a workload's turn comes.
        reference_every_s: The reference is sampled about this often, in seconds.
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


# Networks need longer to settle than operators: interleaved with eleven others and run once before each sample, they
# were 6 % (PyTorch) to 14 % (ONNX Runtime) slower than alone.
NETWORK_PROTOCOL = Protocol(
    settle_s=0.01,
    sample_s=0.015,
    min_rounds=2,
    max_rounds=4,
    max_relative_spread=0.004,
    samples_per_turn=3,
    reference_every_s=0.0,
)


# Errors of a dozen networks average out in the two numbers that they are fitted by.
CALIBRATION_PROTOCOL = replace(NETWORK_PROTOCOL, max_rounds=2)
