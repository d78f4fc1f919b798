"""Counts of NNI's model spaces, compared with counts by hand and with PyTorch's counts on frozen networks."""

from __future__ import annotations

from typing import Any

import nni
import nni.nas.strategy  # imported first: otherwise NNI's import cycle leaves stubs
import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.profiler.pytorch.utils import shape
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_proxyless import MobileNetV2Space
from nni_proxyless.errors import SpaceError
from nni_proxyless.latency import Choice, make_backend
from nni_proxyless.latency.counts import Counts, counts_of_space
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_spaces import space_counts
from nni_proxyless.nni_spaces.space_counts import counts_of_model_space, counts_of_module
from nni_proxyless.nni_spaces.space_latency import measure_model_space
from tests.nni_spaces.test_profiler import Small, samples


class Plain(ModelSpace):
    """Space of a layer of three candidates, one of which computes nothing, and of a block that may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = MutableConv2d(3, 8, 3, padding=1, bias=False)
        self.layer = LayerChoice(
            {
                "depthwise": nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False),
                "grouped": nn.Conv2d(8, 8, 1, groups=2, bias=False),
                "skip": nn.Identity(),
            },
            label="layer",
        )
        self.block = LayerChoice(
            [nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Linear(6, 6)), nn.Identity()],
            label="block",
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.block(self.layer(self.stem(x)))).flatten(1))


def named(counts: Counts, choice: Choice) -> dict[str, float]:
    return {name: value for name, value in zip(counts.columns, counts.values[choice], strict=True) if value}


def total(counts: Counts, sample: dict[str, Any]) -> dict[str, float]:
    rows = [counts.values[Choice(label, str(name))] for label, name in sample.items()]
    return dict(zip(counts.columns, np.sum([counts.fixed, *rows], axis=0).tolist(), strict=True))


def test_counts_of_candidates_by_hand() -> None:
    counts = counts_of_model_space(Plain(), (3, 6, 6))
    common = {"activations": 8 * 36, "convolutions": 1, "blocks": 1}
    assert named(counts, Choice("layer", "depthwise")) == {**common, "depthwise5_macs": 8 * 25 * 36, "parameters": 200}
    assert named(counts, Choice("layer", "grouped")) == {**common, "grouped_macs": 8 * 4 * 36, "parameters": 32}
    assert named(counts, Choice("layer", "skip")) == {}
    fixed = dict(zip(counts.columns, counts.fixed, strict=True))
    assert fixed["convolution_macs"] == 3 * 8 * 9 * 36
    assert fixed["linear_macs"] == 16
    assert fixed["parameters"] == 3 * 8 * 9 + 18
    assert fixed["activations"] == 8 * 36 + 2


def test_a_failed_shape_inference_changes_no_later_one() -> None:
    """NNI remembers running modules by their ids, and forgets none that fails. A new module may get the same id."""
    space = Plain().eval()
    image = torch.zeros(1, 3, 6, 6)
    expected = space(image)
    with pytest.raises(SpaceError, match=r"NNI's shape inference fails on Plain with input \(5, 6, 6\)"):
        counts_of_model_space(space, (5, 6, 6))
    assert torch.equal(space(image), expected)  # its hooks are gone, too
    assert shape._current_module_names == []
    counts = counts_of_model_space(space, (3, 6, 6))
    # A convolution that has failed in NNI's own profiler, and whose place in memory the space has now.
    left_behind = shape._ModuleName(id(space), "stem", "torch.nn.Conv2d", True)
    shape._current_module_names.append(left_behind)
    assert counts_of_model_space(space, (3, 6, 6)) == counts


def test_counts_of_networks_are_those_of_pytorch() -> None:
    space = Plain()
    counts = counts_of_model_space(space, (3, 6, 6))
    for sample, network in samples(space, 6):
        found = total(counts, sample)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(torch.zeros(1, 3, 6, 6))
        macs = sum(value for name, value in found.items() if name.endswith("_macs"))
        assert macs == pytest.approx(counter.get_total_flops() / 2)
        assert found["parameters"] == pytest.approx(sum(p.numel() for p in network.parameters()))


def test_counts_that_depend_on_two_choices_are_the_best_sum() -> None:
    """The width of the stem changes the counts of both candidates: the sum has the least squared error of all sums."""
    space = Small()
    counts = counts_of_model_space(space, (3, 8, 8))
    assert set(counts.candidates) == {"width", "layer", "depth"}
    assert all(value >= 0 for row in counts.values.values() for value in row)
    rows, exact = [], []
    for width in (4, 8):
        for layer in ("small", "large"):
            sample = {"width": width, "layer": layer, "depth": 1}
            network = space.freeze(sample)
            exact.append(sum(p.numel() for p in network.parameters()))
            rows.append(total(counts, sample)["parameters"])
    design = np.array([[1, i, j] for i in (0, 1) for j in (0, 1)])
    fitted = design @ np.linalg.lstsq(design, np.array(exact), rcond=None)[0]
    np.testing.assert_allclose(rows, fitted)
    assert not np.allclose(rows, exact)


def test_products_of_matrices_are_counted_beside_layers() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.query(x) @ x.transpose(1, 2)

    found = counts_of_module(Attention(), [torch.zeros(1, 3, 4)])
    assert found["linear_macs"] == 3 * 16
    assert found["other_macs"] == 3 * 3 * 4
    transposed = counts_of_module(nn.ConvTranspose2d(4, 2, 3, 2, bias=False), [torch.zeros(1, 4, 5, 5)])
    assert transposed["convolution_macs"] == 4 * 2 * 9 * 25


def test_a_space_of_this_package_is_counted_by_its_description(tiny_spec: SpaceSpec) -> None:
    assert counts_of_model_space(MobileNetV2Space(tiny_spec), (1, 8, 8)) == counts_of_space(tiny_spec)


def test_modules_that_depend_on_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_counts, "_MOST_COMBINATIONS", 3)
    with pytest.raises(SpaceError, match=r"depends on the choices .* at once, in 4 combinations; at most 3"):
        counts_of_model_space(Small(), (3, 8, 8))

    class Continuous(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.rate = nni.uniform("rate", 0.0, 1.0)
            self.add_mutable(self.rate)

    with pytest.raises(SpaceError, match="choice 'rate' is Numerical: only choices among candidates have counts"):
        counts_of_model_space(Continuous(), (3, 8, 8))


class Takes(nn.Module):
    """First result of a module of sequences."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        given = (x, x, x) if isinstance(self.inner, nn.MultiheadAttention) else (x,)
        return self.inner(*given)[0]  # type: ignore[no-any-return]


STEPS, WIDTH, HIDDEN = 7, 6, 10
BY_STEP = {
    # Weights of the input and of the state, for 4, 3 and 1 gates.
    "lstm": (nn.LSTM(WIDTH, HIDDEN, batch_first=True), 4 * HIDDEN * (WIDTH + HIDDEN)),
    "two layers": (
        nn.LSTM(WIDTH, HIDDEN, num_layers=2, bidirectional=True, batch_first=True),
        2 * 4 * HIDDEN * (WIDTH + HIDDEN) + 2 * 4 * HIDDEN * (2 * HIDDEN + HIDDEN),
    ),
    "projected": (nn.LSTM(WIDTH, HIDDEN, proj_size=3, batch_first=True), 4 * HIDDEN * (WIDTH + 3) + HIDDEN * 3),
    "gru": (nn.GRU(WIDTH, HIDDEN, batch_first=True), 3 * HIDDEN * (WIDTH + HIDDEN)),
    "rnn": (nn.RNN(WIDTH, HIDDEN, batch_first=True), HIDDEN * (WIDTH + HIDDEN)),
    # Three projections and that of the output; each step has products with all steps for scores and for values.
    "attention": (nn.MultiheadAttention(WIDTH, 2, batch_first=True), 4 * WIDTH * WIDTH + 2 * STEPS * WIDTH),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", list(BY_STEP))
def test_multiply_adds_of_sequence_layers_are_those_by_hand(name: str) -> None:
    layer, by_step = BY_STEP[name]
    counted = counts_of_module(Takes(layer), [torch.randn(1, STEPS, WIDTH)])
    assert sum(value for key, value in counted.items() if key.endswith("_macs")) == STEPS * by_step
    backend = make_backend("flops")
    assert backend.prepare(Takes(layer), (STEPS, WIDTH)).sample(1) == STEPS * by_step

    class Space(ModelSpace):
        def __init__(self) -> None:
            super().__init__()
            self.layer = LayerChoice({"it": Takes(layer), "none": nn.Identity()}, label="layer")

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)  # type: ignore[no-any-return]

    costs = measure_model_space(Space(), torch.randn(1, STEPS, WIDTH), backend).own_costs()
    assert [costs.of({"layer": choice}) for choice in ("it", "none")] == [STEPS * by_step, 0]
