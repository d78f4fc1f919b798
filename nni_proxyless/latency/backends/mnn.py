"""Backend that runs networks with MNN on the CPU, in fp32."""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np

from ...errors import RunError
from ...files.work_folder import WorkFolder
from .native_output import captured_output
from .onnx_model import Images, ModelWorkload, OnnxModelBackend

# The converter writes the weights to a file of a fixed name in the working directory, and reads them from it again. Two
# conversions in one directory exchange them, or find only zeros. So each one has a process and a directory of its own.
_CONVERT = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_tools", sys.argv[1])
tools = module_from_spec(spec)
spec.loader.exec_module(tools)
tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", sys.argv[2], "--MNNModel", sys.argv[3]])
"""


class MnnBackend(OnnxModelBackend):
    """MNN on the CPU, with precision `high`, which is fp32.

    The ONNX model is converted with the converter of MNN's own package.

    Args:
        threads: Number of CPU threads.
        batch: Number of images in a batch.

    Raises:
        InputError: A setting is invalid.
        MissingDependencyError: MNN is not installed.
    """

    name = "mnn"
    extra = "mnn"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        super().__init__(threads, batch)
        self._require("onnx")  # for the export
        with captured_output():  # the import prints the features of the processor
            self._runtime = self._require("MNN")
            # Not `MNN.tools.mnnconvert`: importing that module installs a package with pip, and it reports its use.
            self._tools = self._require("_tools", "MNN")

    @property
    def version(self) -> str:
        return version("MNN")

    def convert(self, model: bytes) -> bytes:
        with WorkFolder() as folder:
            source, target = folder / "model.onnx", folder / "model.mnn"
            source.write_bytes(model)
            self._run_converter(
                "mnnconvert", [sys.executable, "-c", _CONVERT, self._tools.__file__, source.name, target.name], target
            )
            return target.read_bytes()

    def load(self, model: bytes, images: Images) -> ModelWorkload:
        mnn = self._runtime
        with WorkFolder() as folder, captured_output():
            path = folder / "model.mnn"
            path.write_bytes(model)
            interpreter = mnn.Interpreter(str(path))
            session = interpreter.createSession({"backend": "CPU", "numThread": self.threads, "precision": "high"})
        image = interpreter.getSessionInput(session)
        image.copyFrom(mnn.Tensor(images.shape, mnn.Halide_Type_Float, images.copy(), mnn.Tensor_DimensionType_Caffe))

        def output() -> Images:
            found = interpreter.getSessionOutput(session)
            values = np.empty(found.getShape(), np.float32)
            copy = mnn.Tensor(values.shape, mnn.Halide_Type_Float, values, mnn.Tensor_DimensionType_Caffe)
            if not found.copyToHostTensor(copy):
                raise RunError("MNN did not hand over the output of the model")
            return np.array(copy.getData(), np.float32).reshape(values.shape)

        def run() -> None:
            code = interpreter.runSession(session)
            if code != 0:
                raise RunError(f"MNN could not run the model: its error code is {code}, and 0 means success")

        return ModelWorkload(run, output)
