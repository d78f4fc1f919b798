"""All eleven model spaces of NNI's hub are searched, and the networks compute what the supernet does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers import REPOSITORY
from tests.strategies.hub_spaces import GRADIENTS, SPACES, row, searched

# One space of each kind, with one gradient in turn. All other pairs are slow.
KINDS = ("MobileNetV3Space", "AutoFormer", "NasBench101", "ENAS", "NasBench201")
IN_TURN = [(name, GRADIENTS[number % len(GRADIENTS)]) for number, name in enumerate(KINDS)]
PAIRS = [
    pytest.param(name, gradient, marks=[] if (name, gradient) in IN_TURN else pytest.mark.slow)
    for name in SPACES
    for gradient in GRADIENTS
]


@pytest.mark.parametrize(("name", "gradient"), PAIRS)
def test_each_space_of_the_hub_is_searched_with_each_gradient(name: str, gradient: Any) -> None:
    """A space for which this fails must not have `yes` in the table of docs/nni.md."""
    searched(name, gradient)
    assert row(name, SPACES[name]) in (REPOSITORY / "docs" / "nni.md").read_text(encoding="utf-8")


def test_the_table_of_the_documentation_has_all_spaces() -> None:
    text = (REPOSITORY / "docs" / "nni.md").read_text(encoding="utf-8")
    assert [name for name, space in SPACES.items() if row(name, space) not in text] == []
