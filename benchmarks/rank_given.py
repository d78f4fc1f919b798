"""Strategy `random` with given networks instead of drawn ones, so that one supernet serves several budgets."""

from __future__ import annotations

from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from nni_proxyless.strategies.baselines import RandomSearch
from nni_proxyless.supernet.space import require_description


class RankGiven(RandomSearch):
    """As a recipe's strategy: `rank_given:RankGiven`.

    Args:
        networks: What is ranked: the candidate names of each, layer by layer.
        **kwargs: `RandomSearch`'s own.
    """

    def __init__(self, *, networks: list[str], **kwargs: Any) -> None:
        super().__init__(best_of=1, **kwargs)
        self._networks = networks

    def apply_table(self, model: ModelSpace) -> None:
        super().apply_table(model)
        spec = require_description(model, "strategy rank_given")
        labels = [layer.label for layer in spec.layers]
        self._drawn = [dict(zip(labels, name.split(), strict=True)) for name in self._networks]
