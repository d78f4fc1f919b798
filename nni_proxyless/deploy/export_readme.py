"""The `README.md` next to exported files: what they contain, and how to run them without this package."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.preprocessing import Preprocessing
from ..network.architecture import Architecture
from ..network.onnx_file import INPUT, OUTPUT
from .exported import Exported
from .model_input import ModelInput

_UNKNOWN = (
    "How an image becomes the input is **not known**. Either no recipe was given that names the training data, or the "
    "data come from a function. Export the network again with `--recipe`, or prepare images as in the training."
)
_RUN = (
    "This program does the same, and prints the class of an image file with 8 bits per channel. It needs "
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
        f"The input `{INPUT}` is a batch of images in float32. Its shape is ({size}, {channels}, {height}, {width}): "
        f"images, channels, height and width. The output `{OUTPUT}` has a number for each class, and the largest "
        "number is that of the recognised class.",
        "",
        "| file | format | images with the same class as in PyTorch |",
        "|---|---|---|",
        *(f"| `{one.file}` | {one.format} | {100 * one.agreement:.1f} % |" for one in results),
        "",
        "## From an image to the input",
        *([_UNKNOWN] if about is None or not about.preprocessing.known else _known(results, batch, about)),
        "",
        "## Further files",
        "`model_card.json` says how the network was trained, and `export.json` how the files were checked.",
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
    resizing = {
        "stretch": [f"Resize it to {size} pixels ({steps.interpolation})."],
        "cover": [f"Resize it to the smallest size that covers {size} pixels ({steps.interpolation})."],
        "none": [],
    }[steps.resize]
    whole = steps.resize == "stretch" and (steps.resize_height, steps.resize_width) == (steps.height, steps.width)
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (steps.mean, steps.std))
    listed = [
        f"Convert the image to mode {steps.colour} of Pillow.",
        *resizing,
        *([] if whole else [f"Cut out its centre of {steps.width} x {steps.height} pixels."]),
        f"Divide the values by 255, subtract the mean ({mean}), and divide by the standard deviation ({std}).",
    ]
    lines = [
        *(f"{number}. {text}" for number, text in enumerate(listed, start=1)),
        "",
        f"The metadata of an ONNX file has these steps and the names of the {len(about.classes)} classes, in JSON: "
        "`classes`, `mean`, `std`, `resize` and `layout`.",
    ]
    model = next((one.file for one in results if one.format in ("onnx", "int8")), None)
    return lines if model is None else [*lines, "", _RUN, "", "```python", *code(model, batch, steps), "```"]
