"""Backend that runs networks with ncnn on the CPU, in fp32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, RunError
from ...files.work_folder import WorkFolder
from .base import Workload
from .onnx_model import Images, ModelWorkload, OnnxModelBackend

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

_HALF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
# pnnx ends with a segmentation fault on a network without operators.
_EMPTY = "7767517\n2 2\nInput in0 0 1 in0\nNoop noop 1 1 in0 out0\n"


@dataclass(frozen=True)
class NcnnModel:
    """The two files of an ncnn model: the graph (text) and the weights."""

    graph: str
    weights: bytes


class NcnnBackend(OnnxModelBackend):
    """ncnn on the CPU in fp32, with its memory pools as in `benchncnn`.

    The ONNX model is converted with pnnx, the converter of ncnn's authors. ncnn has no batches.

    Args:
        threads: Number of CPU threads.
        batch: Number of images in a batch, which must be 1.

    Raises:
        InputError: A setting is invalid.
        MissingDependencyError: ncnn or pnnx is not installed.
    """

    name = "ncnn"
    extra = "ncnn"

    def __init__(self, threads: int = 1, batch: int = 1) -> None:
        super().__init__(threads, batch)
        if batch != 1:
            raise InputError(f"backend ncnn runs one image at a time: batch must be 1, got {batch}")
        self._require("onnx")  # for the export
        self._runtime = self._require("ncnn")
        self._converter = str(self._require("pnnx").EXEC_PATH)

    @property
    def version(self) -> str:
        return version("ncnn")

    def loader(self, module: nn.Module, input_shape: tuple[int, ...]) -> Callable[[], Workload]:
        from torch import nn

        if isinstance(module, nn.Identity):
            images = np.zeros((1, *input_shape), np.float32)
            return lambda: self.load(NcnnModel(_EMPTY, b""), images)
        return super().loader(module, input_shape)

    def convert(self, model: bytes) -> NcnnModel:
        with WorkFolder() as folder:
            (folder / "model.onnx").write_bytes(model)
            graph, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
            self._run_converter("pnnx", [self._converter, "model.onnx", "fp16=0"], graph)
            return NcnnModel(graph.read_text(encoding="utf-8"), weights.read_bytes())

    def load(self, model: NcnnModel, images: Images) -> ModelWorkload:
        ncnn = self._runtime
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        for option in _HALF:
            setattr(net.opt, option, False)
        with WorkFolder() as folder:
            graph, weights = folder / "model.param", folder / "model.bin"
            graph.write_text(model.graph, encoding="utf-8")
            weights.write_bytes(model.weights)
            if net.load_param(str(graph)) != 0 or net.load_model(str(weights)) != 0:
                raise self._unreadable("pnnx converted it to operators that this ncnn does not have")
        image = ncnn.Mat(images[0]).clone()
        blobs, workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()

        def extract() -> Any:
            extractor = net.create_extractor()
            # Not in `net.opt`: the network would also take weights from the pools, and must then be freed before them.
            extractor.set_blob_allocator(blobs)
            extractor.set_workspace_allocator(workspace)
            extractor.input("in0", image)
            failed, output = extractor.extract("out0")
            if failed != 0:
                raise RunError(f"ncnn could not run the model: its error code is {failed}, and 0 means success")
            return output

        def run() -> None:
            extract()  # its result is not returned, because it must be freed before the pools

        def output() -> Images:
            return np.array(extract())[None]

        return ModelWorkload(run, output)
