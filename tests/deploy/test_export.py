"""Exported files yield the results of PyTorch. If they do not, no file is written."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from nni_proxyless import Architecture
from nni_proxyless.deploy import export as exporting
from nni_proxyless.deploy.export import FILES, Images, export, find_tables, load_images
from nni_proxyless.errors import ArchitectureError, InputError, RunError
from nni_proxyless.latency import random_architecture
from nni_proxyless.network.folding import fold_batch_norm
from nni_proxyless.network.space_spec import SpaceSpec, shipped_spaces
from nni_proxyless.network.weights import save_weights
from tests.helpers import SMALL_SPACE, table_of


def trained(spec: SpaceSpec, seed: int) -> tuple[Architecture, nn.Module]:
    """Build a random network whose batch-norms have random statistics, so that folding them has an effect."""
    torch.manual_seed(seed)
    architecture = random_architecture(spec, random.Random(seed))
    network = architecture.build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr,operator]
    return architecture, network.eval()


def of_the_data(spec: SpaceSpec, count: int) -> Images:
    """Images that stand for those of the network's data."""
    return replace(Images.random(spec.input_shape, count), of_the_data=True)


@pytest.mark.parametrize(("space", "seed"), [*((name, 0) for name in shipped_spaces()), ("tiny", 0), ("tiny", 1)])
def test_every_format_gives_pytorchs_results(space: str, seed: int, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    spec = tiny_spec if space == "tiny" else SpaceSpec.from_yaml(space)
    if spec.input_size > 64:
        spec = spec.with_changes(input_size=64)
    architecture, network = trained(spec, seed)
    weights = save_weights(network, tmp_path / "weights.pt")
    images = of_the_data(spec, 4)
    done = export(architecture, weights, tmp_path / "out", tuple(FILES), images, measure=False, accept_loss=True)
    assert [one.format for one in done] == list(FILES)
    for one in done:
        assert (tmp_path / "out" / one.file).is_file()
        assert one.format == "int8" or one.max_difference <= 1e-4
    # Independently of the check in `export`, the ONNX file is run in a separate session.
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    image = torch.randn(1, *spec.input_shape)
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(image), atol=1e-4, rtol=0)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        [*FILES.values(), "README.md", "architecture.json", "export.json", "model_card.json"]
    )


def test_batch_norm_is_folded(tiny_spec: SpaceSpec) -> None:
    _, network = trained(tiny_spec, 0)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    image = torch.randn(3, *tiny_spec.input_shape)
    with torch.no_grad():
        torch.testing.assert_close(folded(image), network(image), atol=1e-5, rtol=1e-4)


def test_a_model_that_differs_is_not_written(
    tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    out = tmp_path / "out"
    images = Images.random(tiny_spec.input_shape, 2)
    export(architecture, weights, out, ("onnx",), images, measure=False)
    before = (out / "model.onnx").read_bytes()
    _, other = trained(tiny_spec, 0)
    nn.init.normal_(other.classifier.linear.weight)  # type: ignore[union-attr,arg-type]
    monkeypatch.setattr(exporting, "fold_batch_norm", lambda _: fold_batch_norm(other))
    with pytest.raises(RunError, match=r"the exported model.onnx differs from PyTorch.*nothing was written"):
        export(architecture, weights, out, ("onnx",), images, measure=False)
    assert (out / "model.onnx").read_bytes() == before
    assert not list(out.glob(".export-*"))


def test_large_logits_may_differ_by_more(
    tiny_spec: SpaceSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In float32, the rounding errors of logits grow with the logits."""
    architecture, network = trained(tiny_spec, 0)
    linear = network.classifier.linear  # type: ignore[union-attr]
    with torch.no_grad():
        linear.weight *= 1e6  # type: ignore[union-attr,operator]
        linear.bias[2] = 1e9  # type: ignore[union-attr,index,operator]
    weights = save_weights(network, tmp_path / "weights.pt")
    (done,) = export(architecture, weights, tmp_path / "out", ("onnx",), of_the_data(tiny_spec, 4), measure=False)
    assert done.max_difference <= 1e-4 * 2e9
    assert "the network assigns all 4 images to class 2" in caplog.text


def test_logits_that_are_not_finite_are_refused(
    tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    monkeypatch.setitem(exporting.WRITERS, "int8", lambda *words: words[-1].write_bytes(b"int8"))
    monkeypatch.setitem(
        exporting.RUNNERS, "int8", lambda *_: lambda image: torch.full((1, tiny_spec.classes), math.nan)
    )
    with pytest.raises(RunError, match=r"model_int8.onnx gives logits that are not finite; nothing was written"):
        export(architecture, weights, tmp_path / "out", ("int8",), of_the_data(tiny_spec, 2), accept_loss=True)
    assert not (tmp_path / "out").exists()


def test_bad_input(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    architecture, _network = trained(tiny_spec, 0)
    images = Images.random(tiny_spec.input_shape, 2)
    with pytest.raises(InputError, match="unknown format 'onx'; did you mean 'onnx'"):
        export(architecture, tmp_path / "w.pt", tmp_path / "out", ("onx",), images)
    with pytest.raises(ArchitectureError, match="there is no file of weights"):
        export(architecture, tmp_path / "w.pt", tmp_path / "out", ("onnx",), images)
    assert not (tmp_path / "out").exists()


def test_real_images_check_and_others_calibrate(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    spec = tiny_spec.with_changes(classes=10)
    architecture, _ = trained(spec, 0)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump({"data": "digits", "seed": 1}))
    found = load_images(architecture, tmp_path / "recipe.yml", 50)
    assert found.check.shape == (50, 1, 8, 8)
    assert found.calibration.shape == (50, 1, 8, 8)
    assert found.labels is not None
    assert len(found.labels.unique()) == 10
    assert not any(torch.equal(a, b) for a in found.check[:5] for b in found.calibration)
    noise = load_images(architecture, tmp_path / "none.yml", 50)
    assert (noise.labels, noise.source) == (None, "random images")


def test_tables_near_an_architecture(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    """The architecture's own table comes first, then the tables of other targets.

    The results folders may lie side by side, or `run` may have grouped them by target.
    """
    places = ("flat/a", "flat/b", "deep/a/seed-0", "deep/a/seed-1", "deep/b/seed-0", "deep/b/seed-1")
    for place in places:
        replace(table_of(tiny_spec), backend_version=place).save(tmp_path / place / "latency_table.yml")
        (tmp_path / place / "retrained").mkdir()

    def found(place: str) -> list[str]:
        return [table.backend_version for table in find_tables([], tmp_path / place / "architecture.json")]

    assert found("flat/b/retrained") == found("flat/b") == ["flat/b", "flat/a"]
    expected = ["deep/b/seed-1", "deep/b/seed-0", "deep/a/seed-1"]
    assert found("deep/b/seed-1/retrained") == found("deep/b/seed-1") == expected
    assert len(find_tables([tmp_path / "flat" / "b" / "latency_table.yml"], tmp_path / "x.json")) == 1
    assert found("elsewhere/deep") == []


@pytest.mark.slow
def test_latencies_of_exported_files_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nni_proxyless.latency import make_backend, measure_table_isolated
    from nni_proxyless.latency.isolated import measure_file_isolated

    # One process instead of three for each file, to save time; `test_isolated_measurements` has several.
    monkeypatch.setitem(measure_file_isolated.__kwdefaults__, "processes", 1)

    spec = SpaceSpec.from_dict(SMALL_SPACE)
    table = measure_table_isolated(spec, make_backend("onnxruntime"), processes=1)
    architecture, network = trained(spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    formats = ("onnx", "int8", "torchscript", "torch_export", "state_dict")
    done = export(
        architecture, weights, tmp_path / "out", formats, of_the_data(spec, 4), tables=[table], accept_loss=True
    )
    by_format = {one.format: one for one in done}
    assert by_format["onnx"].predicted_latency_ms == pytest.approx(table.costs(spec).of(architecture.choices))
    assert all(one.measured_latency_ms is not None and one.measured_latency_ms > 0 for one in done)
    assert by_format["int8"].predicted_latency_ms is None  # the table was measured in another format
    content = json.loads((tmp_path / "out" / "export.json").read_text())
    assert [one["file"] for one in content["formats"]] == [FILES[name] for name in formats]
