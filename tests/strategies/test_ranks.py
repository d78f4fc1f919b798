"""A search in Python on several ranks: plain DDP samples the same paths on all of them, or the strategy is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nni.nas.evaluator.pytorch import Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.strategies import DDPStrategy

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError
from tests import toy
from tests.helpers import REPOSITORY
from tests.strategies.test_self_check import QUIET, Plain
from tests.warm import run_warm, warm_python

SCRIPT = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from nni_proxyless import ProxylessNAS
from tests import toy
from tests.strategies.test_self_check import QUIET, Plain

train, val = [DataLoader(toy.feature_data(seed, 256), batch_size=32, shuffle=True) for seed in (0, 1)]
trainer = Trainer(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", **QUIET)
evaluator = Lightning(Plain(), trainer, train_dataloaders=train, val_dataloaders=val)
settings = {"finalists": 4, "finalist_steps": 5, "arch_gradient": sys.argv[2]}
strategy = ProxylessNAS(latency=toy.table(), budget_ms=5.4, **settings)  # no seed
strategy(RawFormatModelSpace(toy.Features(), evaluator), SequentialExecutionEngine())
weights = next(iter(strategy.supernet.linear.parameters()))
found = {
    "alpha": {label: gate.alpha.tolist() for label, gate in strategy._gates.items()},
    "weights": weights.flatten().tolist(),
    "choices": strategy.export_architecture().choices,
    "warnings": list(strategy.warnings),
    "trained_steps": sum(finalist.trained_steps for finalist in strategy.compared),
}
open(os.path.join(sys.argv[1], os.environ.get("LOCAL_RANK", "0")), "w").write(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["full"])
def test_plain_ddp_searches_alike_on_all_ranks_without_a_seed(gradient: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    out.mkdir()
    done = run_warm(["python", str(script), str(out), gradient], REPOSITORY, _environment(tmp_path), 300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((out / rank).read_text()) for rank in ("0", "1"))
    # Rank 0 alone trains finalists on: 4, then 2 of them. Their weights are restored, so both ranks end alike.
    assert (first.pop("trained_steps"), second.pop("trained_steps")) == (5 * (4 + 2), 0)
    assert first == second
    assert all(any(value != 0.0 for value in alpha) for alpha in first["alpha"].values())
    assert not any("ranks" in warning for warning in first["warnings"])


def _environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in warm_python(folder).items() if not key.startswith(("LOCAL_RANK", "PYTEST"))}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def initialize(strategy: Any) -> None:
    trainer = Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy=strategy, **QUIET)
    train, val = toy.loaders()
    evaluator = Lightning(Plain(), trainer, train_dataloaders=train, val_dataloaders=val)
    ProxylessNAS().initialize(RawFormatModelSpace(toy.Features(), evaluator), SequentialExecutionEngine())


def test_strategies_that_cannot_share_the_paths_are_refused() -> None:
    class Mine(DDPStrategy):
        """Somebody's own strategy."""

    with pytest.raises(InputError, match=r"cannot search with Trainer\(strategy=Mine\); use strategy='ddp'"):
        initialize(Mine())
    with pytest.raises(InputError, match=r"Trainer\(strategy='ddp_spawn'\) leaves the result of a search in processes"):
        initialize("ddp_spawn")
