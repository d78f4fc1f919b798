"""The `README.md` beside exported files: what they hold, and how to run them without this package."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.preprocessing import Preprocessing
from ..network.architecture import Architecture
from ..network.onnx_file import INPUT, OUTPUT
from .exported import Exported
from .model_input import ModelInput

_UNKNOWN = (
    "The preprocessing of images is **not known**: the export had no recipe that names the data which the network was "
    "trained on, or they come from a program. Export the network again with `--recipe`, or give it images as in its "
    "training."
)
_RUN = (
    "This program prints the class of an image file of 8 bits per channel. All that it needs is installed by "
    "`pip install onnxruntime numpy pillow`:"
)


def readme(architecture: Architecture, results: Sequence[Exported], batch: int | None, about: ModelInput | None) -> str:
    """Write the page.

    Args:
        architecture: Architecture of the exported network.
        results: Results of the export.
        batch: Number of images in a batch; `None` if it is open.
        about: Preprocessing and classes; `None` if they are not known.

    Returns:
        Text in Markdown. If there is an ONNX file, and the preprocessing is known, its block of Python classifies one
        image with onnxruntime, numpy and Pillow.
    """
    channels, height, width = architecture.require_spec().input_shape
    size = "batch" if batch is None else str(batch)
    lines = [
        f"# {architecture.space_name}",
        "",
        f"The network takes float32 images of shape ({size}, {channels}, {height}, {width}) as `{INPUT}`, and returns "
        f"one logit for each class as `{OUTPUT}`.",
        "",
        "| file | format | same class as PyTorch |",
        "|---|---|---|",
        *(f"| `{one.file}` | {one.format} | {100 * one.agreement:.1f} % |" for one in results),
        "",
        *([_UNKNOWN] if about is None or not about.preprocessing.known else _known(results, batch, about)),
        "",
        "`model_card.json` has how the network was trained, and `export.json` how the files were checked.",
    ]
    return "\n".join(lines) + "\n"


def code(model: str, batch: int | None, steps: Preprocessing) -> list[str]:
    """Return the lines of a program that classifies the image of its first argument.

    Args:
        model: Name of the ONNX file.
        batch: Number of images in a batch of the model; `None` if it is open.
        steps: Preprocessing of the images.
    """
    shape = f"{steps.height}, {steps.width}, {steps.channels}"
    given = "pixels.transpose(2, 0, 1)[None].astype(np.float32)" + (
        "" if batch in (None, 1) else f".repeat({batch}, 0)"
    )
    return [
        "import json, sys, numpy as np, onnxruntime, PIL.Image as Image, PIL.ImageOps as ImageOps",
        f'session = onnxruntime.InferenceSession("{model}", providers=["CPUExecutionProvider"])',
        "about = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}",
        'image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGBA")',
        f'image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("{steps.colour}")',
        *_resizing(steps),
        f'pixels = (np.asarray(image, np.float32).reshape({shape}) / 255 - about["mean"]) / about["std"]',
        f'logits = session.run(["{OUTPUT}"], {{"{INPUT}": {given}}})[0][0]',
        'print(about["classes"][logits.argmax()])',
    ]


def _resizing(steps: Preprocessing) -> list[str]:
    height, width = steps.resize_height, steps.resize_width
    method = f"Image.Resampling.{steps.interpolation.upper()}"
    crop = (
        f"image.crop((x := round((image.width - {steps.width}) / 2), y := round((image.height - {steps.height}) / 2), "
        f"x + {steps.width}, y + {steps.height}))"
    )
    if steps.resize == "none":
        return [f"image = {crop}"]
    if steps.resize == "cover":
        wide = f"max({width}, {height} * image.width // image.height)"
        high = f"max({height}, {width} * image.height // image.width)"
        return [f"image = image.resize(({wide}, {high}), {method})", f"image = {crop}"]
    resized = f"image = image.resize(({width}, {height}), {method})"
    return [resized] if (height, width) == (steps.height, steps.width) else [resized, f"image = {crop}"]


def _known(results: Sequence[Exported], batch: int | None, about: ModelInput) -> list[str]:
    steps = about.preprocessing
    size = f"{steps.resize_width} x {steps.resize_height}"
    rule = {
        "stretch": f"is resized to {size} pixels ({steps.interpolation})",
        "cover": f"is resized to the smallest size that covers {size} pixels ({steps.interpolation})",
        "none": "keeps its size",
    }[steps.resize]
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (steps.mean, steps.std))
    cut = f"Its centre of {steps.width} x {steps.height} pixels is cut out."
    values = (
        f"Values are divided by 255, the mean ({mean}) is subtracted, and the result is divided by the standard "
        f"deviation ({std})."
    )
    lines = [
        f"An image of mode {steps.colour} {rule}. {cut} {values} There are {len(about.classes)} classes. The metadata "
        "of an ONNX file says the same under `classes`, `mean`, `std`, `resize` and `layout`, in JSON.",
    ]
    model = next((one.file for one in results if one.format in ("onnx", "int8")), None)
    return lines if model is None else [*lines, "", _RUN, "", "```python", *code(model, batch, steps), "```"]
