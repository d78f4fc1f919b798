"""Peak memory of any model space, against exported graphs, own descriptions and decoding of all networks."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs
import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import Tensor
from torch.utils.data import TensorDataset

from nni_proxyless import LatencyTable, ProxylessNAS
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.errors import InputError, LatencyTableError
from nni_proxyless.latency import make_backend, random_architecture
from nni_proxyless.latency.costs import SpaceCosts
from nni_proxyless.network.footprint import network_peak_bytes
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.nni_spaces import space_memory
from nni_proxyless.nni_spaces.space_latency import measure_model_space
from nni_proxyless.strategies.applied_table import counts_of_space
from nni_proxyless.supernet.space import MobileNetV2Space
from tests.nni_spaces.memory_spaces import Residual, Signals, Transformer, exported, exported_peak
from tests.nni_spaces.spaces import EveryChoice, LooseEnds, samples_of
from tests.nni_spaces.test_space_latency import candidates_of
from tests.strategies.test_self_check import QUIET, Plain

SHAPE = (3, 8, 8)
TOKENS = torch.randint(0, 11, (1, 6), generator=torch.Generator().manual_seed(0))
SPACES: dict[str, tuple[Any, Any, tuple[Tensor, ...]]] = {
    "every choice": (lambda: EveryChoice(pooled=True), SHAPE, (torch.randn(1, *SHAPE),)),
    "residual": (Residual, SHAPE, (torch.randn(1, *SHAPE),)),
    "loose ends": (LooseEnds, SHAPE, (torch.randn(1, *SHAPE),)),
    "signals": (Signals, ((2, 16), (5,)), (torch.randn(1, 2, 16), torch.randn(1, 5))),
    "transformer": (Transformer, TOKENS, (TOKENS,)),
}


def memory(table: LatencyTable, space: ModelSpace) -> SpaceCosts:
    return counts_of_space(table, candidates_of(space))["peak_memory"]


@pytest.fixture(scope="module", params=list(SPACES))
def known(request: pytest.FixtureRequest) -> tuple[ModelSpace, LatencyTable, list[tuple[dict[str, Any], int]]]:
    """A space, its table, and the memory of the exported graph of each of its networks."""
    make, inputs, example = SPACES[request.param]
    space = make()
    table = measure_model_space(space, inputs, make_backend("flops"), memory=True)
    return space, table, [(s, exported_peak(exported(space.freeze(s), *example))) for s in samples_of(space)]


def test_the_memory_of_all_networks_is_that_of_the_exported_graphs(known: Any, tmp_path: Path) -> None:
    space, table, networks = known
    table = LatencyTable.load(table.save(tmp_path / "table.yml"))
    assert table.composition is not None
    assert table.composition.memory is not None
    assert table.composition.memory.exact
    costs = memory(table, space)
    assert [costs.largest_of(sample) for sample, _ in networks] == [true for _, true in networks]
    assert len({true for _, true in networks}) > 1


@pytest.mark.parametrize("seed", range(3))
def test_decoding_within_memory_is_that_of_all_networks(known: Any, seed: int) -> None:
    space, table, networks = known
    generator = torch.Generator().manual_seed(seed)
    probs = {
        label: torch.softmax(2 * torch.randn(len(of), generator=generator).double(), 0)
        for label, of in candidates_of(space).items()
    }
    counts = counts_of_space(table, candidates_of(space))
    candidates = candidates_of(space)
    values = sorted({true for _, true in networks})

    def likelihood(sample: dict[str, Any]) -> float:
        return float(torch.stack([probs[k][of.index(sample[k])] for k, of in candidates.items()]).prod())

    for limit in {values[0], values[len(values) // 2], values[-1]}:
        most = counts["parameters"].of(networks[seed][0])
        limits = [Constraint("peak_memory", limit, counts["peak_memory"], "max")]
        within = sorted((likelihood(s) for s, true in networks if true <= limit), reverse=True)
        found = likeliest_satisfying(probs, limits, 5)
        assert [likelihood(choices) for choices in found] == pytest.approx(within[:5])
        true_of = {str(sample): true for sample, true in networks}
        assert all(true_of[str({k: choices[k] for k in networks[0][0]})] <= limit for choices in found)
        limits.append(Constraint("parameters", most, counts["parameters"]))
        both = [likelihood(s) for s, true in networks if true <= limit and counts["parameters"].of(s) <= most]
        if both:
            assert likelihood(likeliest_satisfying(probs, limits)[0]) == pytest.approx(max(both))
        else:
            with pytest.raises(InputError, match="no network of this space is within"):
                likeliest_satisfying(probs, limits)
    with pytest.raises(InputError, match=rf"peak_memory <= {values[0] - 1} bytes, and the smallest .* is {values[0]} "):
        likeliest_satisfying(probs, [Constraint("peak_memory", values[0] - 1, counts["peak_memory"], "max")])


@pytest.mark.parametrize("most", [1, 4])
def test_bounds_stand_for_what_depends_on_many_choices(
    known: Any, most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    space, _, networks = known
    _, inputs, _ = SPACES[next(name for name, (make, _, _) in SPACES.items() if isinstance(space, type(make())))]
    monkeypatch.setattr(space_memory, "MOST_EXACT", most)
    monkeypatch.setattr(space_memory, "MOST_OF_PART", 16)
    table = measure_model_space(space, inputs, make_backend("flops"), memory=True)
    assert table.composition is not None
    assert table.composition.memory is not None
    costs = memory(table, space)
    values = [(costs.largest_of(sample), true) for sample, true in networks]
    assert all(bound >= true for bound, true in values)
    assert max(bound / true for bound, true in values) < 4
    if most == 1:
        assert not table.composition.memory.exact
        assert "peak_memory is an upper bound in this space" in caplog.text
        strategy = ProxylessNAS(counts=table, budgets={"peak_memory": "99%"})
        strategy.apply_table(space)
        assert any("may be excluded" in text for text in strategy.warnings)


def test_the_memory_of_an_own_space_is_that_of_its_description() -> None:
    spec = SpaceSpec.from_yaml("mobilenetv2_digits")
    table = measure_model_space(MobileNetV2Space(spec), spec.input_shape, make_backend("params"), memory=True)
    assert table.composition is not None
    costs = table.composition.quantities()["peak_memory"]
    generator = random.Random(0)
    for _ in range(50):
        choices = random_architecture(spec, generator).choices
        assert costs.largest_of(choices) == network_peak_bytes(spec.operators(choices))


def test_the_batch_does_not_matter() -> None:
    tables = [measure_model_space(Transformer(), TOKENS.repeat(n, 1), make_backend("torch", batch=n), memory=True,
                                  calibration_networks=0) for n in (1, 3)]  # fmt: skip
    first, second = (table.composition for table in tables)
    assert first is not None
    assert second is not None
    assert first.memory == second.memory


@pytest.mark.parametrize("limit", ["combinations", "networks"])
def test_a_space_whose_memory_cannot_be_known_says_what_helps(
    limit: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if limit == "combinations":
        monkeypatch.setattr(space_memory.MemoryFunctions, "_most_combinations", lambda *_: 1)
    else:
        monkeypatch.setattr(space_memory, "MOST_RUNS", 0)
    table = measure_model_space(Residual(), SHAPE, make_backend("flops"), memory=True)
    assert table.composition is not None
    assert table.composition.memory is None
    assert "the table has no peak memory: " in caplog.text
    assert "combinations, and at most" in caplog.text or "is not known after" in caplog.text
    assert "reduce the choices of the space, such as its widths" in caplog.text
    assert "latency fit" not in caplog.text
    with pytest.raises(InputError, match="the table of the space has no peak memory"):
        ProxylessNAS(counts=table, budgets={"peak_memory": "99%"}).apply_table(Residual())


def test_inputs_can_be_given_by_their_names() -> None:
    """The names are in another order than in `forward`. The memory by position is that of the exported graphs."""
    by_position, by_name = (
        measure_model_space(Signals(), inputs, make_backend("flops"), memory=True)
        for inputs in (((2, 16), (5,)), {"vector": (5,), "signal": (2, 16)})
    )
    assert by_position.composition is not None
    assert by_name.composition is not None
    assert by_name.composition.memory == by_position.composition.memory
    assert by_name.operators == by_position.operators


def searched(strategy: ProxylessNAS, space: ModelSpace) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(16, *SHAPE), torch.randint(0, 2, (16,)))
    loaders = [DataLoader(data, batch_size=8) for _ in range(2)]
    trainer = Trainer(max_epochs=1, **QUIET)
    evaluator = Lightning(Plain(), trainer, train_dataloaders=loaders[0], val_dataloaders=loaders[1])
    strategy(RawFormatModelSpace(space, evaluator), SequentialExecutionEngine())


@pytest.fixture(scope="module")
def residual() -> LatencyTable:
    return measure_model_space(Residual(), SHAPE, make_backend("flops"), memory=True)


@pytest.fixture(scope="module")
def cell() -> LatencyTable:
    return measure_model_space(LooseEnds(), SHAPE, make_backend("flops"), memory=True)


@pytest.mark.parametrize("gradient", ["full", "two_path", "reinforce"])
@pytest.mark.parametrize("kind", ["residual", "cell"])
def test_a_search_keeps_its_memory(gradient: Any, kind: str, request: pytest.FixtureRequest) -> None:
    make, table = {"residual": Residual, "cell": LooseEnds}[kind], request.getfixturevalue(kind)
    costs = memory(table, make())
    values = sorted({costs.largest_of(sample) for sample in samples_of(make())})
    limit = values[len(values) // 3]
    assert limit < values[-1]
    strategy = ProxylessNAS(
        counts=table, budgets={"peak_memory": limit, "parameters": "95%"}, arch_gradient=gradient,
        arch_update_every=1, finalists=1, seed=0,
    )  # fmt: skip
    searched(strategy, make())
    found = strategy.export_architecture()
    network = make().freeze(dict(found.choices))
    true = exported_peak(exported(network, torch.randn(1, *SHAPE)))
    assert true == found.budgets["peak_memory"]["value"] <= limit
    for choices in strategy.distribution().k_most_likely(20):
        assert exported_peak(exported(make().freeze(dict(choices)), torch.randn(1, *SHAPE))) <= limit


def test_impossible_budgets_are_refused_when_the_strategy_is_made(residual: LatencyTable) -> None:
    costs = memory(residual, Residual())
    values = {str(sample): (costs.largest_of(sample), sample) for sample in samples_of(Residual())}
    least = min(value for value, _ in values.values())
    with pytest.raises(
        InputError, match=rf"within peak_memory <= 1024 bytes, and the smallest .* is {least:.0f} bytes"
    ):
        ProxylessNAS(counts=residual, budgets={"peak_memory": "1KiB"})
    ProxylessNAS(counts=residual, budgets={"peak_memory": least})


@pytest.mark.parametrize("seed", range(4))
def test_conflicts_are_explained_as_all_networks_show(seed: int, residual: LatencyTable) -> None:
    space = Residual()
    candidates, costs = candidates_of(space), memory(residual, space)
    generator = random.Random(seed)
    # Times for which the widest networks are the fastest.
    layers = {label: tuple(generator.uniform(1, 2) - 0.6 * place for place in range(len(of)))
              for label, of in candidates.items()}  # fmt: skip
    phone = SpaceCosts(1.0, candidates, layers)
    networks = [(costs.largest_of(sample), phone.of(sample)) for sample in samples_of(space)]
    least, fastest = min(networks)[0], min(time for _, time in networks)
    uniform = {label: torch.full((len(of),), 1 / len(of)).double() for label, of in candidates.items()}

    def message(most: float, slowest: float) -> str:
        limits = [Constraint("peak_memory", most, costs, "max"), Constraint("phone", slowest, phone)]
        with pytest.raises(InputError) as caught:
            likeliest_satisfying(uniform, limits)
        return str(caught.value)

    told = message(least, fastest)
    needed = min(value for value, time in networks if time <= fastest)
    assert f"peak_memory of at least {needed:.0f} bytes if the rest holds" in told
    given = [float(text) for text in re.findall(r"phone of at least ([\d.]+) ms", told)]
    assert given == pytest.approx([min(time for value, time in networks if value <= least)], rel=1e-3)
    told = message(least - 1, fastest)
    ((value, time),) = re.findall(r"nearest to all budgets has peak_memory (\d+) bytes, phone ([\d.]+) ms", told)

    def excess(of: tuple[float, float]) -> float:
        return max(of[0] / (least - 1) - 1, of[1] / fastest - 1)

    assert excess((float(value), float(time))) == pytest.approx(min(map(excess, networks)), abs=1e-3)


def test_tables_without_memory_are_refused(residual: LatencyTable) -> None:
    assert residual.composition is not None
    older = replace(residual, composition=replace(residual.composition, memory=None))
    strategy = ProxylessNAS(counts=older, budgets={"peak_memory": "1MB"})
    with pytest.raises(InputError, match="the table of the space has no peak memory"):
        strategy.apply_table(Residual())
    with pytest.raises(
        InputError, match=r"'peak_memory_int8': .* parameters, multiply_adds and, with memory=True, peak_memory only"
    ):
        ProxylessNAS(counts=residual, budgets={"peak_memory_int8": "1MB"}).apply_table(Residual())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["parts"][0].update(bytes="many"), "part 1: bytes must be numbers, got 'many'"),
        (lambda m: m["parts"][0].update(bytes="-1"), "bytes must be a number from 0"),
        (lambda m: m["parts"][0].update(bytes="1, 2"), "bytes must be a string of 1 items"),
        (lambda m: m["parts"][0].update(labels=["wrong"]), "labels must be labels of the candidates"),
        (lambda m: m["parts"].append(m["parts"][0]), "two parts have the same labels"),
        (lambda m: m.update(parts=3), "parts must be a list"),
        (lambda m: m.update(bounded="layer"), "bounded must be a list of names of modules"),
        (lambda m: m.update(more=1), "more"),
    ],
)
def test_damaged_memory_is_refused(change: Any, message: str, residual: LatencyTable) -> None:
    content = residual.to_dict()
    change(content["composition"]["memory"])
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.from_dict(content)
