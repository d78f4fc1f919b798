"""Description of the input and the outputs of an exported network, for metadata, model cards and READMEs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.preprocessing import LAYOUT, Preprocessing
from ..data.preprocessing_file import read_preprocessing
from ..network.onnx_file import INPUT, OUTPUT


@dataclass(frozen=True)
class ModelInput:
    """The preprocessing of the images that a network was trained with, and the names of its classes.

    Attributes:
        preprocessing: Steps from an image to the input of the network.
        classes: Names of the classes, in the order of the logits.
    """

    preprocessing: Preprocessing
    classes: tuple[str, ...]

    @classmethod
    def beside(cls, weights: Path) -> ModelInput | None:
        """Read the description that a search or retraining has written next to its weights; `None` if there is none.

        Raises:
            DataError: The file cannot be read, or has other content.
        """
        found = read_preprocessing(weights.parent)
        return None if found is None else cls(*found)

    def metadata(self) -> dict[str, str]:
        """Return the metadata of an exported file: texts in JSON by key.

        `mean` and `std` have a number for each channel, for pixel values between 0 and 1. `mean`, `std` and `resize`
        are absent if the images come from a function of the user, whose steps are not known.
        """
        steps = self.preprocessing
        content: dict[str, Any] = {
            "classes": list(self.classes),
            "layout": {
                "axes": LAYOUT,
                "colours": steps.colour,
                "shape": list(steps.input_shape),
                "dtype": "float32",
                "input": INPUT,
                "output": OUTPUT,
            },
        }
        if steps.known:
            content |= {
                "mean": list(steps.mean),
                "std": list(steps.std),
                "resize": {**steps.to_dict()["resize"], "crop_height": steps.height, "crop_width": steps.width},
            }
        return {key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in content.items()}
