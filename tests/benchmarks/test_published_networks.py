"""Published networks: accuracies as their sources state them, latencies from several processes, and the front."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.published_networks import networks, tables
from benchmarks.published_networks.networks import (
    BASELINE,
    HUB,
    INPUT_SHAPE,
    MOBILENET_V2,
    NETWORKS,
    OTHERS,
    PROXYLESS,
    SLIM,
    Network,
    torchvision_meta,
)
from benchmarks.published_networks.published_networks import COLUMNS, MOST_DIFFERENCE, measure, prepared
from benchmarks.published_networks.tables import RUNTIMES, front, latencies, spread
from nni_proxyless.latency import make_backend
from nni_proxyless.latency.protocol import Protocol
from nni_proxyless.network.catalogue import PUBLISHED

# Top-1 errors of the page on PyTorch Hub, and accuracies of the page of TensorFlow's checkpoints.
HUB_ERRORS = {"proxyless_cpu": 24.7, "proxyless_gpu": 24.9, "proxyless_mobile": 25.4, "proxyless_mobile_14": 23.3}
SLIM_ACCURACIES = {"mobilenet_v2_0.75": 69.8, "mobilenet_v2_1": 71.8, "mobilenet_v2_1.4": 75.0}
SHORT = Protocol(warmup_s=0.001, settle_s=0.001, sample_s=0.001, min_rounds=1, max_rounds=1)


def row(runtime: str, network: str, ms: float, reference_ms: float) -> dict[str, str]:
    return {"runtime": runtime, "network": network, "ms": str(ms), "reference_ms": str(reference_ms)}


def test_accuracies_are_those_of_their_sources() -> None:
    assert {n.name: n.top1 for n in NETWORKS if n.source == HUB} == {
        name: pytest.approx(100 - error) for name, error in HUB_ERRORS.items()
    }
    assert {n.name: n.top1 for n in NETWORKS if n.source == SLIM} == SLIM_ACCURACIES
    assert {n.name for n in NETWORKS if n.family == PROXYLESS} == set(PUBLISHED)
    for network in (n for n in NETWORKS if n.family == OTHERS):
        metrics = torchvision_meta(network.name)["_metrics"]
        assert metrics == {"ImageNet-1K": {"acc@1": network.top1, "acc@5": pytest.approx(91, abs=3)}}
        built = networks._torchvision(network.name)
        assert sum(p.numel() for p in built.parameters()) == torchvision_meta(network.name)["num_params"]


def test_multiply_adds_are_counted_alike() -> None:
    """The metadata of torchvision state those of its MobileNetV2, which is ours at width 1."""
    (ours,) = [n for n in NETWORKS if n.name == "mobilenet_v2_1"]
    theirs = Network("mobilenet_v2", 71.878, "", OTHERS)
    assert ours.multiply_adds_m == pytest.approx(theirs.multiply_adds_m, abs=0.5)


def test_latencies_are_ratios_to_the_reference() -> None:
    rows = [
        row("a", "x", 10, 10), row("a", "y", 20, 10),
        row("a", "x", 24, 20), row("a", "y", 36, 20),  # a process with slower memory
        row("a", "x", 11, 10), row("a", "y", 10, 10),
        row("b", "x", 3, 2), row("b", "y", 3, 2),
    ]  # fmt: skip
    # ratios of x: 1, 1.2, 1.1; of y: 2, 1.8, 1; the lowest reference is 10 ms
    found = latencies(rows)
    assert found == {
        ("a", "x"): pytest.approx(11), ("a", "y"): pytest.approx(18), ("b", "x"): 3, ("b", "y"): 3,
    }  # fmt: skip
    assert spread(rows) == pytest.approx((0.2 + 1.0) / 2)  # runtime b has one process


def test_only_networks_that_no_other_one_beats_are_on_the_front() -> None:
    made = {name: Network(name, top1, "", OTHERS) for name, top1 in zip("abcde", (70, 75, 74, 76, 75), strict=True)}
    ms = {"a": 5.0, "b": 6.0, "c": 7.0, "d": 9.0, "e": 6.0}
    found = {("r", name): value for name, value in ms.items()}
    assert [n.name for n in front(found, "r", made.values())] == ["a", "b", "d"]


def test_tables_divide_the_baselines_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row(runtime, network.name, 30 if network == BASELINE else 10 if network.family == PROXYLESS else 40, 20)
        for runtime in RUNTIMES
        for network in NETWORKS
    ]
    monkeypatch.setattr(tables, "read_rows", lambda _: rows)
    lines = tables.published_headline().splitlines()
    assert "`proxyless_mobile` (-0.4 points)" in lines[0]
    assert len(lines) == 2 + len(RUNTIMES)
    assert all(line.endswith("| 30.0 | 3.00 × | 3.00 × | 3.00 × | 3.00 × |") for line in lines[2:])
    bold = re.findall(r"`(\w+)` \| .*\*\*", tables.published_networks())
    assert bold == ["proxyless_mobile_14", "efficientnet_b0"]  # the most accurate of equally fast ones, and of all


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_a_runtime_measures_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network, "build", lambda self: Small().eval())
    made = [Network("a", 70.0, "", MOBILENET_V2), Network("b", 70.0, "", MOBILENET_V2)]
    rows = measure(make_backend(name), made, {"runtime": "R", "pass": 2}, SHORT)
    assert [(r["runtime"], r["network"], r["pass"]) for r in rows] == [("R", "a", "2"), ("R", "b", "2")]
    for found in rows:
        assert tuple(found) == COLUMNS
        assert 0 < float(found["ms"]) < float(found["reference_ms"])  # the reference is MobileNetV2
        assert float(found["difference"]) <= MOST_DIFFERENCE
        assert len(found["samples_ms"].split()) == 1


def test_int8_is_quantised_and_may_differ() -> None:
    torch.manual_seed(6)  # the outputs of some random networks are all near 0
    network = Small().eval()
    loader, difference = prepared(make_backend("onnxruntime", dtype="int8"), network)
    assert 1e-4 < difference < 0.2
    loader().run()


def test_a_runtime_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make_backend("onnxruntime")
    network = Small().eval()
    prepared(backend, network)
    monkeypatch.setattr(backend, "convert", lambda _: other)
    from nni_proxyless.network.onnx_file import export_onnx

    other = export_onnx(Small().eval(), INPUT_SHAPE, 1)
    with pytest.raises(ValueError, match="onnxruntime differs from PyTorch by"):
        prepared(backend, network)


def test_the_picture_is_drawn_from_the_committed_file(tmp_path: Path) -> None:
    tables.draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
