"""Tables of bad inputs; `tests/system/test_bad_input.py` gives each of them to the command line."""

from __future__ import annotations

from . import (
    architectures,
    command_line,
    configs,
    damaged,
    data_sets,
    doubtful,
    environment,
    measurements,
    outputs,
    recipes,
    retrainings,
    spaces,
    tables,
)

CASES = [
    *command_line.CASES,
    *recipes.CASES,
    *retrainings.CASES,
    *spaces.CASES,
    *tables.CASES,
    *architectures.CASES,
    *measurements.CASES,
    *data_sets.CASES,
    *configs.CASES,
    *environment.CASES,
    *outputs.CASES,
    *damaged.CASES,
    *doubtful.CASES,
]
