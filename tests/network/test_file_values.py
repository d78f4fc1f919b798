"""Values in files of spaces, architectures, weights and checkpoints that were once accepted although they are wrong."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_proxyless import Architecture
from nni_proxyless.decoding.checkpoint import CHECKPOINT_KEY, CHECKPOINT_SCHEMA, SearchCheckpoint
from nni_proxyless.errors import ArchitectureError, DamagedFileError, InputError, SpaceError
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network import size_limits
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.torch_file import read_torch_file
from nni_proxyless.network.weights import load_into, save_weights
from tests.helpers import REPOSITORY, table_of

CHOICES = {"stage1_layer1": "k5_e2", "stage1_layer2": "skip", "stage2_layer1": "k3_e1"}
HUGE = 10**400


def put(content: Any, path: str, value: Any) -> Any:
    """Put a value at a path such as `stages.0.depth` of nested mappings and lists."""
    *way, last = path.split(".")
    here = content
    for key in way:
        here = here[int(key)] if isinstance(here, list) else here[key]
    here[int(last) if isinstance(here, list) else last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input.size", 100_000, "'size' must be a whole number from 1 to 4096, got 100000"),
        ("input.channels", 10**9, "'channels' must be a whole number from 1 to 4096"),
        ("stages.0.depth", 10**9, "stage 1: 'depth' must be a whole number from 1 to 500"),
        ("stages.1.width", 10**9, "stage 2: 'width' must be a whole number from 1 to 16384"),
        ("stages.0", {"width": 8, "depth": 500, "stride": 1}, "the stages must have at most 500 layers in all"),
        ("stem.width", HUGE, "'width' must be a whole number from 1, got 1000"),
        ("head.width", 20_000, "'width' must be a whole number from 1 to 16384"),
        ("classes", 10**7, "'classes' must be a whole number from 1 to 1000000"),
        ("width_mult", 1e300, "'width_mult' must be a positive number up to 100, got 1e"),
        ("width_mult", HUGE, "'width_mult' must be a positive number, got 1000"),
        ("width_mult", math.nan, "'width_mult' must be a positive number, got nan"),
        ("candidates.kernels", [3, 65], "'kernels' must be whole numbers up to 63, got"),
        ("candidates.kernels", [3, HUGE], "'kernels' must be a list of different whole numbers"),
        ("candidates.expansions", [1, 1000], "'expansions' must be whole numbers up to 64"),
        ("candidates.kernels", {"3": 5}, "'kernels' must be a list of different whole numbers"),
        ("schema", ["nni-proxyless/space@1"], "schema must be"),
    ],
)
def test_spaces_that_no_machine_can_hold(path: str, value: Any, message: str, tiny_spec: SpaceSpec) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        SpaceSpec.from_dict(put(tiny_spec.to_dict(), path, value))
    assert len(str(caught.value)) < 500


def test_the_sizes_of_a_space_are_bounded_together(tiny_spec: SpaceSpec) -> None:
    content = put(tiny_spec.to_dict(), "stages.1", {"width": 16_384, "depth": 3, "stride": 2})
    content = put(content, "width_mult", 10.0)
    with pytest.raises(SpaceError, match=r"is too large: its candidates have [\d,]+ parameters in all"):
        SpaceSpec.from_dict(content)
    content = put(put(put(tiny_spec.to_dict(), "input.size", 4096), "stem.width", 16_384), "first_block.width", 16_384)
    with pytest.raises(SpaceError, match=r"up to [\d,]+ values for an image, and 10,000,000,000 are allowed"):
        SpaceSpec.from_dict(content)
    assert size_limits.MOST_VALUES == 10_000_000_000


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("target", ["cpu"], r"'target' must be a string or null, got \['cpu'\]"),
        ("target", 3, "'target' must be a string or null, got 3"),
        ("strategy", {}, "'strategy' must be a string or null"),
        ("seed", "1", "'seed' must be a whole number from 0 or null, got '1'"),
        ("seed", HUGE, "'seed' must be a whole number from 0 or null, got 1000"),
        ("budget_ms", HUGE, "'budget_ms' must be a positive number or null, got 1000"),
        ("measured_latency_ms", 1e308, "'measured_latency_ms' must be a positive number or null"),
        ("metrics", {"default": "0.9"}, "'metrics' must be a mapping to numbers, got '0.9' for 'default'"),
        ("metrics", {"default": math.nan}, "'metrics' must be a mapping to numbers, got nan"),
        ("metrics", {1: 0.5}, "'metrics' must be a mapping to numbers, got 0.5 for 1"),
        ("versions", {"torch": 2}, "'versions' must be a mapping to strings"),
        ("warnings", "x", "'warnings' must be a list of strings, got 'x'"),
        ("warnings", [1], "'warnings' must be a list of strings"),
        ("choices", {1: "k3_e1"}, "'choices' must map labels to candidates, got 'k3_e1' for 1"),
        ("choices", {"stage1_layer1": {}}, "'choices' must map labels to candidates, got {} for 'stage1_layer1'"),
        ("choices.stage1_layer1", ["k3_e1"], r"layer stage1_layer1: unknown candidate '\['k3_e1'\]'"),
        ("choices.stage1_layer1", 3, "layer stage1_layer1: unknown candidate '3'"),
        ("choices.stage1_layer1", "x" * 10**6, "layer stage1_layer1: unknown candidate 'xxx"),
        ("space", [], "'space' must be a mapping with name and hash"),
        ("space.name", 3, "'space' must be a mapping with name and hash"),
        ("space.spec", "x", "'space.spec' must be a mapping or null"),
    ],
)
def test_architectures_with_wrong_values(path: str, value: Any, message: str, tiny_spec: SpaceSpec) -> None:
    content = Architecture.of_space(tiny_spec, CHOICES, seed=1, metrics={"default": 0.5}).to_dict()
    with pytest.raises(ArchitectureError, match=message) as caught:
        Architecture.from_dict(put(content, path, value))
    assert len(str(caught.value)) < 500


def test_choices_of_a_space_of_the_users_own_may_be_numbers_and_lists() -> None:
    content = {
        "schema": "nni-proxyless/architecture@1", "space": {"name": "Mine", "hash": "0", "spec": None},
        "choices": {"kernel": 3, "inputs": [0, 2], "act": "relu", "bias": True},
    }  # fmt: skip
    assert Architecture.from_dict(content).choices == content["choices"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.to(torch.complex64), "must be real numbers, got torch.complex64"),
        (lambda w: w * math.nan, "must be finite numbers, but some are infinite or not a number"),
        (lambda w: w + math.inf, "must be finite numbers"),
        (lambda w: w > 0, "must be real numbers, got torch.bool"),
        (lambda w: w.to_sparse(), "must be a plain tensor, got one of layout torch.sparse_coo"),
        (lambda w: w.to("meta"), "must be a plain tensor, got one of layout torch.strided on device meta"),
    ],
)
def test_weights_that_are_no_numbers(
    change: Callable[[torch.Tensor], torch.Tensor], message: str, tiny_spec: SpaceSpec, tmp_path: Path
) -> None:
    architecture = Architecture.of_space(tiny_spec, CHOICES)
    state = architecture.build().state_dict()
    name = next(iter(state))
    state[name] = change(state[name])
    torch.save(dict(state), tmp_path / "weights.pt")
    with pytest.raises(ArchitectureError, match=f"the weights '{name}' {message}"):
        architecture.build(pretrained=tmp_path / "weights.pt")


def test_weights_of_another_kind_of_number_are_refused(tiny_spec: SpaceSpec) -> None:
    network = Architecture.of_space(tiny_spec, CHOICES).build()
    state = dict(network.state_dict())
    name = next(iter(state))
    state[name] = state[name].to(torch.int64)
    with pytest.raises(ArchitectureError, match=f"'{name}' is torch.int64, and this one needs torch.float32"):
        load_into(network, state)


def test_a_file_that_unpacks_to_much_more_than_its_size_is_not_unpacked(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    path = save_weights(Architecture.of_space(tiny_spec, CHOICES).build(), tmp_path / "weights.pt")
    read_torch_file(path)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            after.writestr(name, before.read(name) + b"\0" * 20_000_000 * name.endswith("/data/0"))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(DamagedFileError, match=r"bytes and would unpack to 20\d{6}, so PyTorch did not write it"):
        read_torch_file(bomb)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="it is a pipe, not a file"):
        read_torch_file(tmp_path / "pipe")


def checkpoint_of(spec: SpaceSpec, **changes: Any) -> dict[str, Any]:
    state = {
        "schema": CHECKPOINT_SCHEMA,
        "space": spec.to_dict(),
        "alpha": {layer.label: torch.zeros(len(layer.names)) for layer in spec.layers},
        "candidates": {layer.label: list(layer.names) for layer in spec.layers},
    }
    return {CHECKPOINT_KEY: {**state, **changes}}


def test_a_pruned_path_is_never_decoded(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    content = checkpoint_of(tiny_spec)
    content[CHECKPOINT_KEY]["alpha"]["stage1_layer1"][0] = -math.inf
    torch.save(content, tmp_path / "checkpoint.ckpt")
    assert SearchCheckpoint.load(tmp_path).decode().choices["stage1_layer1"] == "k5_e1"


@pytest.mark.parametrize(
    ("label", "value", "message"),
    [
        ("stage1_layer1", torch.full((4,), math.nan), "stage1_layer1: α must be finite numbers"),
        ("stage1_layer1", torch.tensor([0.0, math.inf, 0.0, 0.0]), "stage1_layer1: α must be finite numbers"),
        ("stage1_layer1", torch.full((4,), -math.inf), "α is -inf for every candidate, so none is left"),
        (
            "stage1_layer1",
            torch.zeros(3),
            r"α must be 4 floats, one for each candidate, got torch.float32 of shape \(3,\)",
        ),
        ("stage1_layer1", torch.zeros(4, 1), r"got torch.float32 of shape \(4, 1\)"),
        ("stage1_layer1", torch.zeros(4, dtype=torch.int64), "α must be 4 floats"),
        ("stage1_layer1", torch.zeros(4, dtype=torch.complex64), "α must be 4 floats"),
        ("stage1_layer1", torch.zeros(4).to_sparse(), "α must be a plain tensor"),
        ("stage1_layer1", [0.0] * 4, r"α must be 4 floats, one for each candidate, got \[0.0, 0.0"),
        ("stage9_layer1", torch.zeros(4), "'alpha' must have the 3 layers of space 'tiny', got"),
    ],
)
def test_checkpoints_with_wrong_alpha(
    label: str, value: Any, message: str, tiny_spec: SpaceSpec, tmp_path: Path
) -> None:
    content = checkpoint_of(tiny_spec)
    content[CHECKPOINT_KEY]["alpha"][label] = value
    torch.save(content, tmp_path / "checkpoint.ckpt")
    with pytest.raises(InputError, match=message) as caught:
        SearchCheckpoint.load(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": None}, "alpha must be a mapping, got None"),
        ({"candidates": {}}, "'candidates' must have the 3 layers of space 'tiny'"),
        ({"candidates": dict.fromkeys(CHOICES, "k3_e1")}, "stage1_layer1: the candidates must be k3_e1, k5_e1"),
        ({"space": 3}, "space must be a mapping, got 3"),
        ({"space": {}}, "space: schema must be"),
        ({"schema": 1}, "is not a checkpoint of a search: it lacks 'nni_proxyless'"),
    ],
)
def test_checkpoints_with_wrong_parts(
    changes: dict[str, Any], message: str, tiny_spec: SpaceSpec, tmp_path: Path
) -> None:
    torch.save(checkpoint_of(tiny_spec, **changes), tmp_path / "checkpoint.ckpt")
    with pytest.raises(InputError, match=message):
        SearchCheckpoint.load(tmp_path)


def test_a_good_checkpoint_is_decoded_within_a_budget(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint_of(tiny_spec), buffer)
    (tmp_path / "checkpoint.ckpt").write_bytes(buffer.getvalue())
    table = table_of(tiny_spec)
    budget_ms = 0.5 * (table.costs(tiny_spec).smallest + table.costs(tiny_spec).largest)
    found = SearchCheckpoint.load(tmp_path).decode(table, budget_ms)
    assert found.predicted_latency_ms is not None
    assert found.predicted_latency_ms <= budget_ms


def test_files_of_earlier_versions_are_still_read() -> None:
    recorded = REPOSITORY / "tests" / "recorded"
    for path in recorded.rglob("architecture.json"):
        assert Architecture.load(path).parameters > 0
    for path in recorded.rglob("latency_table.yml"):
        assert LatencyTable.load(path).operators
    assert len(list(recorded.rglob("*.yml"))) >= 4
