"""Exported files can be run by somebody who was not there: names, batches, metadata, README, and int8 that agrees."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from nni_proxyless.cli.entry import build_parser
from nni_proxyless.data.preprocessing import preprocessing_for
from nni_proxyless.data.preprocessing_file import write_preprocessing
from nni_proxyless.deploy import export as exporting
from nni_proxyless.deploy.export import FILES, Images, export
from nni_proxyless.deploy.export_latency import backend_of
from nni_proxyless.deploy.model_input import ModelInput
from nni_proxyless.errors import ArchitectureError, InputError, RunError
from nni_proxyless.latency import make_backend
from nni_proxyless.latency.backends.pytorch import load_model
from nni_proxyless.network.catalogue import by_name
from nni_proxyless.network.onnx_file import export_onnx
from nni_proxyless.network.quantization import quantize_static
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.weights import save_weights
from nni_proxyless.report.gather import gather
from tests.deploy.test_export import of_the_data, trained
from tests.helpers import table_of


def session_of(path: Path) -> Any:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def logits_of(path: Path, images: Tensor) -> Tensor:
    if path.suffix == ".onnx":
        return torch.from_numpy(session_of(path).run(["logits"], {"input": images.numpy()})[0])
    with torch.no_grad():
        return load_model(path)(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("batch", "opset"), [(1, 17), (3, 13), (None, 20)])
def test_names_batch_and_opset(batch: int | None, opset: int, tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    out = tmp_path / "out"
    # torch.export takes seconds. The test of the metadata has its fixed batch.
    formats = ("onnx", "torchscript", *{1: (), 3: ("int8",), None: ("torch_export",)}[batch])
    # 4 images are no multiple of 3: the last batch is filled up, and what was added does not count.
    export(
        architecture, weights, out, formats, of_the_data(tiny_spec, 4), measure=False, batch=batch, opset=opset,
        accept_loss=True,
    )  # fmt: skip
    for name in (name for name in formats if name in ("onnx", "int8")):
        model = onnx.load(str(out / FILES[name]))
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == opset
        (taken,), (given,) = session_of(out / FILES[name]).get_inputs(), session_of(out / FILES[name]).get_outputs()
        assert (taken.name, taken.shape) == ("input", [batch or "batch", 1, 8, 8])
        assert (given.name, given.shape) == ("logits", [batch or "batch", tiny_spec.classes])
    images = torch.randn(batch or 5, 1, 8, 8)
    with torch.no_grad():
        expected = network(images)
    for name in (name for name in formats if name != "int8"):
        torch.testing.assert_close(logits_of(out / FILES[name], images), expected, atol=1e-4, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(load_model(out / "model.pt")(input=images), expected, atol=1e-4, rtol=0)
    if "torch_export" in formats:
        assert list(torch.export.load(out / "model.pt2").graph_signature.user_inputs) == ["input"]
    for name in () if batch is None else set(formats) - {"torchscript"}:  # a fixed batch is fixed
        with pytest.raises(Exception, match=r"(?i)dimension|shape|== 3|== 1"):
            logits_of(out / FILES[name], torch.randn(batch + 1, 1, 8, 8))
    content = json.loads((out / "export.json").read_text())
    assert (content["batch"], content["opset"]) == ("dynamic" if batch is None else batch, opset)


def test_versions_of_operators_that_do_not_exist(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    for formats, opset, message in (
        (("onnx",), 21, "opset must be from 11 to 20, got 21"),
        (("int8",), 12, "int8 needs opset 13 or newer, which has a scale for each channel, got 12"),
    ):
        with pytest.raises(InputError, match=message):
            export(architecture, weights, tmp_path / "out", formats, of_the_data(tiny_spec, 1), opset=opset)
    assert not (tmp_path / "out").exists()


def test_options_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "folder", "--batch", "dynamic", "--opset", "18", "--accept-loss"]
    options = build_parser().parse_args(words)
    assert (options.batch, options.opset, options.accept_loss) == (None, 18, True)
    assert build_parser().parse_args(["export", "folder", "--batch", "8"]).batch == 8
    assert build_parser().parse_args(["export", "folder"]).batch == 1
    with pytest.raises(SystemExit):
        build_parser().parse_args(["export", "folder", "--batch", "0"])
    assert "--batch must be a whole number from 1 to" in (said := capsys.readouterr().err)
    assert "or dynamic, got 0" in said


def test_a_table_of_several_images_measures_files_of_its_batch(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    here = make_backend("onnxruntime", batch=8)
    table = replace(
        table_of(tiny_spec), device=here.device, backend="onnxruntime", backend_version=here.version, batch=8
    )
    for batch, expected in ((1, (1, None)), (8, (8, table)), (None, (8, table))):
        backend, found = backend_of("onnx", [table], batch)
        assert (backend.batch, found) == expected
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    images = of_the_data(tiny_spec, 2)
    for batch in (1, None):
        export(architecture, weights, tmp_path / str(batch), ("onnx",), images, measure=False, batch=batch)
    opened, fixed = tmp_path / "None" / "model.onnx", tmp_path / "1" / "model.onnx"
    for name in ("onnxruntime", "openvino"):  # OpenVINO gets a fixed batch
        workload = make_backend(name, batch=8).file_loader(opened, tiny_spec.input_shape)()
        assert workload.output().shape == (8, tiny_spec.classes)
    with pytest.raises(InputError, match=r"model.onnx takes 1 images at a time, and backend onnxruntime gives it 8"):
        here.file_loader(fixed, tiny_spec.input_shape)


def test_a_measurement_that_fails_says_that_the_files_are_complete(
    tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")

    def fail(*_: object) -> None:
        raise RunError("unplugged")

    monkeypatch.setattr(exporting, "_measured", fail)
    with pytest.raises(RunError, match=r"unplugged; the files in .*/out are checked and complete"):
        export(architecture, weights, tmp_path / "out", ("state_dict",), of_the_data(tiny_spec, 1))

    def missing(*_: object) -> None:
        raise InputError("no runtime")

    monkeypatch.setattr(exporting, "backend_of", missing)
    with pytest.raises(InputError, match="no runtime"):
        export(architecture, weights, tmp_path / "new", ("state_dict",), of_the_data(tiny_spec, 1))
    assert not (tmp_path / "new").exists()


RUN = """
import contextlib, io, json, os, sys
sys.modules["torch"] = None  # so that importing it fails
found = []
for folder, image, code in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.argv = ["classify.py", image]
    names, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, names)
    found.append([names["logits"].tolist(), said.getvalue().strip()])
    others = {name.split(".")[0] for name in sys.modules} & {"nni", "nni_proxyless", "torchvision", "onnx"}
    assert not others, others
print(json.dumps(found))
"""


def picture(path: Path, size: tuple[int, int], mode: str, seed: int) -> Path:
    """A picture with structure at several scales, so that a wrong resizing shows."""
    drawn = np.random.default_rng(seed).integers(0, 256, (size[1] // 3 + 1, size[0] // 3 + 1, 3), dtype=np.uint8)
    Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


def test_the_lines_of_the_readme_need_neither_torch_nor_this_package(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    colour = tiny_spec.with_changes(classes=4)
    colour = replace(colour, input_channels=3, input_size=16)
    classes = ("cat", "dog", "Übergröße", '"quoted"')
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    cases: list[tuple[SpaceSpec, dict[str, Any], list[Any], int | None, str]] = [
        (colour, {"resize": "stretch"}, [v2.Resize((16, 16), antialias=True)], 1, "onnx"),
        (colour, {"resize": "cover", "crop": 0.8}, [v2.Resize(20), v2.CenterCrop(16)], None, "onnx"),
        (colour, {"resize": "cover"}, [v2.Resize(18), v2.CenterCrop(16)], 2, "int8"),
        (colour, {"resize": "none"}, [v2.CenterCrop(16)], None, "onnx"),
        (tiny_spec.with_changes(classes=4), {"resize": "stretch"}, [v2.Resize((8, 8))], None, "onnx"),
    ]
    jobs, expected = [], []
    for number, (spec, steps, transforms, batch, name) in enumerate(cases):
        architecture, network = trained(spec, number)
        here = tmp_path / str(number)
        here.mkdir()
        weights = save_weights(network, here / "weights.pt")
        channels = spec.input_shape[0]
        rule = preprocessing_for(spec.input_shape, mean[:channels], std[:channels], **steps)
        write_preprocessing(here, rule, classes)  # as a search and a retraining do
        out = here / "exported"
        export(architecture, weights, out, (name,), of_the_data(spec, 8), measure=False, batch=batch, accept_loss=True)
        (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), flags=re.S)
        assert len(code.splitlines()) <= 10
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean[:channels], std[:channels])]
        for seed, (size, mode) in enumerate([((61, 40), "RGB"), ((33, 70), "L"), ((47, 47), "RGBA")]):
            path = picture(here / f"{seed}.png", size, mode, seed)
            jobs.append((str(out), str(path), code))
            image = v2.Compose([*transforms, *finish])(Image.open(path).convert("RGB" if channels == 3 else "L"))
            with torch.no_grad():
                expected.append((name, network(image[None])[0], classes))
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUN, json.dumps(jobs)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")  # also not a single warning of ONNX Runtime
    found = json.loads(done.stdout)
    for (logits, said), (name, theirs, names) in zip(found, expected, strict=True):
        if name == "onnx":
            torch.testing.assert_close(torch.tensor(logits), theirs, atol=1e-4, rtol=0)
        else:
            assert float((torch.tensor(logits) - theirs).abs().max()) < 0.2 * float(theirs.abs().max())
        assert said == names[int(np.argmax(logits))]


def test_metadata_and_card_say_what_the_readme_says(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    architecture, network = trained(tiny_spec, 0)
    architecture = replace(architecture, budgets={"parameters": {"limit": 50_000.0, "value": 40_000.0}})
    weights = save_weights(network, tmp_path / "weights.pt")
    rule = preprocessing_for(tiny_spec.input_shape, [0.25], [0.5], resize="cover", crop=0.5)
    about = ModelInput(rule, ("a", "b", "c"))
    out = tmp_path / "exported"
    images = replace(of_the_data(tiny_spec, 2), about=about)
    formats = ("onnx", "torchscript", "torch_export")
    export(architecture, weights, out, formats, images, measure=False, accept_loss=True)
    found = session_of(out / "model.onnx").get_modelmeta().custom_metadata_map
    assert {key: json.loads(found[key]) for key in ("classes", "mean", "std", "resize")} == {
        "classes": ["a", "b", "c"],
        "mean": [0.25],
        "std": [0.5],
        "resize": {
            "rule": "cover", "height": 16, "width": 16, "interpolation": "bilinear", "crop_height": 8, "crop_width": 8,
        },
    }  # fmt: skip
    layout = json.loads(found["layout"])
    assert (layout["axes"], layout["colours"]) == ("NCHW", "L")
    kept: dict[str, Any] = dict.fromkeys(found, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is superseded
        torch.jit.load(str(out / "model.pt"), _extra_files=kept)
    assert {key: json.loads(text) for key, text in kept.items()} == {key: json.loads(found[key]) for key in found}
    kept = dict.fromkeys(found, "")
    program = torch.export.load(out / "model.pt2", extra_files=kept).module()
    with pytest.raises(Exception, match=r"(?i)shape|== 1"):
        program(torch.randn(2, 1, 8, 8))
    assert {key: json.loads(text) for key, text in kept.items()} == {key: json.loads(found[key]) for key in found}
    card = json.loads((out / "model_card.json").read_text())
    assert card["preprocessing"] == rule.to_dict()
    assert card["data"]["class_names"] == ["a", "b", "c"]
    assert card["architecture"]["choices"] == dict(architecture.choices)
    assert card["architecture"]["budgets"] == {"parameters": {"limit": 50_000.0, "value": 40_000.0}}


def test_a_card_of_the_retraining_goes_with_the_files_and_counts_once(
    tiny_spec: SpaceSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    card = {
        "schema": "nni-proxyless/model-card@1", "architecture": {"choices": dict(architecture.choices)},
        "results": {"validation": {"top1": 0.5}}, "data": {"name": "digits"},
    }  # fmt: skip
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    out = tmp_path / "exported"
    export(architecture, weights, out, ("state_dict",), of_the_data(tiny_spec, 1), measure=False)
    copied = json.loads((out / "model_card.json").read_text())
    assert (copied["results"], copied["data"]) == (card["results"], card["data"])
    architecture.save(tmp_path / "architecture.json")
    assert [network.folder for network in gather(tmp_path, "").trained] in ([], [tmp_path])
    (tmp_path / "model_card.json").write_text(json.dumps({**card, "architecture": {"choices": {}}}))
    export(architecture, weights, out, ("state_dict",), of_the_data(tiny_spec, 1), measure=False)
    assert "results" not in json.loads((out / "model_card.json").read_text())
    assert "is the model card of another network" in caplog.text


def test_unknown_preprocessing_is_said(tiny_spec: SpaceSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    out = tmp_path / "exported"
    export(architecture, weights, out, ("onnx",), Images.random(tiny_spec.input_shape, 2), measure=False)
    page = (out / "README.md").read_text()
    assert "How an image becomes the input is **not known**." in page
    assert "float32. Its shape is (1, 1, 8, 8): images, channels, height and width." in page
    assert "the files do not say how images are prepared" in caplog.text
    # A description of another network's classes or images counts as none.
    for shape, names in (((1, 8, 8), ("a", "b")), ((1, 9, 8), ("a", "b", "c"))):
        write_preprocessing(tmp_path, preprocessing_for(shape, [0.0], [1.0]), names)
        export(architecture, weights, out, ("state_dict",), of_the_data(tiny_spec, 1), measure=False)
        assert "class_names" not in json.loads((out / "model_card.json").read_text()).get("data", {})
    (tmp_path / "preprocessing.json").unlink()
    export(architecture, weights, out, ("onnx",), Images.random(tiny_spec.input_shape, 2), measure=False)
    assert "```python" not in page
    assert not session_of(out / "model.onnx").get_modelmeta().custom_metadata_map
    unknown = preprocessing_for(tiny_spec.input_shape, [0.0], [1.0], known=False)
    images = replace(Images.random(tiny_spec.input_shape, 2), about=ModelInput(unknown, ("a", "b", "c")))
    export(architecture, weights, out, ("onnx",), images, measure=False)
    assert "is **not known**" in (out / "README.md").read_text()
    assert sorted(session_of(out / "model.onnx").get_modelmeta().custom_metadata_map) == ["classes", "layout"]


def test_int8_that_nothing_calibrates_or_that_disagrees_is_refused(
    tiny_spec: SpaceSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    architecture, network = trained(tiny_spec, 0)
    images = of_the_data(tiny_spec, 64)
    with torch.no_grad():  # all classes equally likely, so that a network that sees nothing is wrong
        network.classifier.linear.bias -= network(images.check).mean(0)  # type: ignore[union-attr,operator]
    weights = save_weights(network, tmp_path / "weights.pt")
    out = tmp_path / "out"
    with pytest.raises(InputError, match="int8 is calibrated with images of the network's data, got random images"):
        export(architecture, weights, out, ("int8",), Images.random(tiny_spec.input_shape, 2), accept_loss=True)
    dark = replace(images, calibration=images.calibration * 1e-3)  # scales a thousandth of the right ones
    with pytest.raises(RunError, match=r"gives [0-9.]+ % of 64 images the same class as PyTorch; at least 95 % and .*"):
        export(architecture, weights, out, ("onnx", "int8"), dark, measure=False)
    assert not out.exists()
    (result,) = export(architecture, weights, out, ("int8",), dark, measure=False, accept_loss=True)
    assert result.agreement < 0.95
    assert "model_int8.onnx gives" in caplog.text


def test_the_limits_of_int8() -> None:
    """Twenty more or less of a thousand images, by hand."""
    labels = torch.zeros(1000, dtype=torch.long)
    right, wrong = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])

    def logits(errors: range) -> Tensor:
        return torch.stack([wrong if number in errors else right for number in range(1000)])

    check = exporting._checked
    good = check("int8", logits(range(20)), logits(range(0, 0)), labels)
    assert (good.agreement, good.accuracy_loss) == (pytest.approx(0.98), pytest.approx(0.02))
    with pytest.raises(RunError, match=r"100.0 % accuracy became 97.9 %; at least 95 % and a loss of at most 2 points"):
        check("int8", logits(range(21)), logits(range(0, 0)), labels)
    assert check("int8", logits(range(50)), logits(range(0, 0)), None).agreement == pytest.approx(0.95)
    with pytest.raises(RunError, match=r"gives 94.9 % of 1000 images the same class"):
        check("int8", logits(range(51)), logits(range(0, 0)), None)
    # Errors elsewhere keep the accuracy, but not the agreement.
    with pytest.raises(RunError, match=r"gives 92.0 % of 1000 images the same class"):
        check("int8", logits(range(40, 80)), logits(range(40)), labels)
    assert check("int8", logits(range(40, 80)), logits(range(40)), labels, True).accuracy_loss == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", list(FILES))
def test_weights_that_are_not_finite_are_refused_in_every_format(
    name: str, value: float, tiny_spec: SpaceSpec, tmp_path: Path
) -> None:
    architecture, network = trained(tiny_spec, 0)
    state = network.state_dict()
    for key in ("stem.conv.weight", "head.bn.running_var"):
        torch.save({**state, key: torch.full_like(state[key], value)}, tmp_path / "weights.pt")
        with pytest.raises(ArchitectureError, match=rf"the weights '{key}' must be finite numbers"):
            export(architecture, tmp_path / "weights.pt", tmp_path / "out", (name,), of_the_data(tiny_spec, 1))
    broken = {**state, "head.bn.running_var": torch.full_like(state["head.bn.running_var"], -1.0)}
    torch.save(broken, tmp_path / "weights.pt")  # finite, but their square root is not
    with pytest.raises(InputError, match="gives logits that are not finite"):
        export(architecture, tmp_path / "weights.pt", tmp_path / "out", (name,), of_the_data(tiny_spec, 1))
    assert not (tmp_path / "out").exists()


def test_weights_of_each_channel_have_a_scale_of_their_own(tiny_spec: SpaceSpec, tmp_path: Path) -> None:
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    export(architecture, weights, tmp_path, ("int8",), of_the_data(tiny_spec, 4), measure=False, accept_loss=True)
    model = onnx.load(str(tmp_path / "model_int8.onnx"))
    scales = {t.name: list(t.dims) for t in model.graph.initializer if "weight_scale" in t.name}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len([dims for dims in scales.values() if dims and dims[0] > 1]) >= len(convolutions)


def exact_and_fast(model: bytes, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of an int8 model with dequantised weights and float arithmetic, and with the runtime's int8 kernels."""
    found = []
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found.append(torch.from_numpy(session.run(None, {"input": images.numpy()})[0]))
    return found[0], found[1]


def test_int8_does_not_overflow_on_any_processor() -> None:
    """The largest sum of two products must fit into the 16 bits in which x86 processors without VNNI add them."""
    network = nn.Conv2d(8, 8, 1)
    nn.init.constant_(network.weight, 1.0)  # all weights are the largest, and so are all activations
    images = torch.ones(1, 8, 2, 2)
    model = quantize_static(export_onnx(network, (8, 2, 2), 1), [images.numpy()])
    tensors = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(model).graph.initializer}
    (weights,) = (values for values in tensors.values() if values.dtype == np.int8 and values.ndim == 4)
    assert weights.shape == (8, 8, 1, 1)
    assert 255 * 2 * int(np.abs(weights.astype(int)).max()) < 2**15
    exact, fast = exact_and_fast(model, images)
    torch.testing.assert_close(exact, network(images).detach(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(fast, exact, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("right", "bits"), [((7, 8), 7), ((8,), 8), ((), 7)])
def test_int8_has_weights_of_8_bits_only_where_7_lose_too_much(
    right: tuple[int, ...], bits: int, tiny_spec: SpaceSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    architecture, network = trained(tiny_spec, 0)
    weights = save_weights(network, tmp_path / "weights.pt")
    images = of_the_data(tiny_spec, 4)
    with torch.inference_mode():
        expected = network(images.check)
    numbers = itertools.count()

    def run(path: Path, _: object) -> Callable[[Tensor], Tensor]:
        sign = 1.0 if int(path.read_text()) in right else -1.0
        return lambda image: sign * expected[next(numbers) % len(expected)][None]

    monkeypatch.setitem(exporting.WRITERS, "int8", lambda source, path: path.write_text(str(source.weight_bits)))
    monkeypatch.setitem(exporting.RUNNERS, "int8", run)
    if not right:
        with pytest.raises(RunError, match="nothing was written"):
            export(architecture, weights, tmp_path / "out", ("int8",), images, measure=False)
    (result,) = export(architecture, weights, tmp_path / "out", ("int8",), images, measure=False, accept_loss=True)
    assert result.weight_bits == bits
    assert (tmp_path / "out" / "model_int8.onnx").read_text() == str(bits)
    assert json.loads((tmp_path / "out" / "export.json").read_text())["formats"][0]["weight_bits"] == bits
    assert ("has weights of 8 bits, because 7 bits lose too much accuracy" in caplog.text) == (bits == 8)


def test_unknown_names_of_networks_list_all() -> None:
    with pytest.raises(ArchitectureError, match=r"proxyless_cpu.*proxyless_mobile_14.*mobilenet_v2"):
        by_name("proxyless_phone")
