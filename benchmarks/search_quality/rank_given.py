"""Random search that ranks given networks instead of drawn ones, so that one supernet serves several budgets."""

from __future__ import annotations

from typing import Any

from nni_proxyless.strategies.nni_strategies import RandomSearch
from nni_proxyless.supernet.space import require_description


class RankGiven(RandomSearch):
    """A recipe names it as its strategy: `benchmarks.search_quality.rank_given:RankGiven`.

    Args:
        networks: Networks to rank: the candidate names of each, layer by layer.
        **kwargs: Arguments of `RandomSearch`.
    """

    def __init__(self, *, networks: list[str], **kwargs: Any) -> None:
        super().__init__(best_of=1, **kwargs)
        self._networks = networks

    def finalists(self) -> list[dict[str, Any]]:
        spec = require_description(self.supernet, "strategy rank_given")
        labels = [layer.label for layer in spec.layers]
        return [dict(zip(labels, name.split(), strict=True)) for name in self._networks]
