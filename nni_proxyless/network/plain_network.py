"""A plain network without search code: a sequence of operators."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from .blocks import NormSettings, initialise
from .operators import Operator


class Network(nn.Module):
    """A plain network: a sequence of operators, without any search code.

    `blocks` has one entry for every layer of the space, and an identity for a skipped layer. So parameter names agree
    with the supernet's, and the state dict of a decoded network loads by name.

    Shape: (batch, channels, height, width) to (batch, classes).
    """

    def __init__(
        self,
        stem: Operator,
        blocks: Iterable[Operator | None],
        head: Operator,
        classifier: Operator,
        norm: NormSettings | None = None,
    ) -> None:
        super().__init__()
        self.stem = stem.build(norm)
        self.blocks = nn.Sequential(*(nn.Identity() if block is None else block.build(norm) for block in blocks))
        self.head = head.build(norm)
        self.classifier = classifier.build(norm)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x)  # type: ignore[no-any-return]
