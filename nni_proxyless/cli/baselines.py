"""`report --baselines`: says what is trained and how long it takes, and trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..progress import work_begins
from .forecast_time import LoadWatch, time_lines
from .terminal import write_lines

if TYPE_CHECKING:
    from ..report.results import Results


def train(results: Results, random_networks: int | None) -> None:
    """Train the baselines that a folder of results does not have yet.

    Args:
        results: Results of searches and retrainings.
        random_networks: Number of random networks for each network that was found; `None` for the default.

    Raises:
        InputError: Nothing was retrained, or its recipe cannot be used for other networks.
        RunError: A training failed.
    """
    from ..report import baselines
    from ..training.ranks import own_processes

    count = baselines.RANDOM_NETWORKS if random_networks is None else random_networks
    planned = baselines.plan_baselines(results, count)
    missing = [one for one in planned if not one.trained]
    done = len(planned) - len(missing)
    if not missing:
        write_lines(f"all {done} baselines are trained")
        return
    work_begins()
    write_lines(f"baselines to train{f' ({done} are trained already)' if done else ''}:")
    for one in missing:
        write_lines(f"  {one.name}: {one.why}; {one.recipe.epochs} epochs with the recipe of {one.like.name}")
    with own_processes():
        baselines.write_networks(missing, results)
        watch = LoadWatch()
        found = baselines.forecast_baselines(missing)
        if found is None:
            write_lines("time: not known, because an epoch has too few steps")
        else:
            first, *more = time_lines(found, watch.read(), found.count)
            write_lines(f"time: {first}", *(f"  {line}" for line in more))
        baselines.train_baselines(missing)
