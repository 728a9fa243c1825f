"""PyTorch modules as ONNX graphs, checked against the modules, and run by ONNX Runtime."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import: else it reports to its maker
import onnxruntime

from ..files import user_path

OPSET = 18
TOLERANCE = 1e-4


def write_checked(
    graph: onnx.ModelProto, path: str | Path, images: np.ndarray, expected: dict[str, np.ndarray]
) -> Path:
    """Write a graph to `path` and return that, once ONNX Runtime computes what is `expected` from `images`.

    `expected` has the values of each output. Raises RuntimeError if one differs by more than `TOLERANCE`.
    """
    path = user_path(path)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for name, values in expected.items():
        difference = np.abs(session.run([name], {"images": images})[0] - values)
        difference = (difference / np.maximum(1, values)).max()  # a distance, unlike a score, may be large
        if not difference <= TOLERANCE:
            raise RuntimeError(f"the ONNX graph's {name} differs from the model's by {difference:.2g}")
    return path


def network_graph(
    module: nn.Module, size: int, outputs: Sequence[str], batch_size: int | None = None
) -> onnx.ModelProto:
    """Translate a module to ONNX: uint8 images of shape (n, size, size, 3), called ``images``, to `outputs`.

    These are names, one for each tensor that the module returns; n is `batch_size`, or any number if that is None.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for layer in module.modules():
        if hasattr(layer, "inplace"):
            layer.inplace = False  # the export takes twice as long to undo it
    device = next(module.parameters()).device
    example = torch.zeros((batch_size or 2, size, size, 3), dtype=torch.uint8, device=device)
    shapes = None if batch_size else ({0: torch.export.Dim("images", min=1, max=4096)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["images"],
            output_names=outputs,
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


class Compiled(nn.Module):
    """A module run by ONNX Runtime on the CPU: the same values to some 1e-6, in a fraction of the time.

    `size` is the side of the images, in pixels, `batch_size` the most of them at a time.
    """

    def __init__(self, module: nn.Module, size: int, batch_size: int = 64):
        super().__init__()
        self.module, self.batch_size = module, max(1, batch_size // getattr(module, "views", 1))
        graph = network_graph(module, size, ["result"], self.batch_size).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images as `module` does."""
        results = []
        for part in images.split(self.batch_size):
            missing = self.batch_size - len(part)  # one size for all halves the seconds of the export
            whole = np.pad(part.numpy(), [(0, missing), (0, 0), (0, 0), (0, 0)])
            results.append(self._session.run(["result"], {"images": whole})[0][: len(part)])
        return torch.from_numpy(np.concatenate(results))


def append_classifier(graph: onnx.ModelProto, classifier: Any, features: int) -> onnx.ModelProto:
    """Return a graph that ends in ``features`` with a scikit-learn classifier of that many behind it."""
    import skl2onnx

    try:
        example, options = np.zeros((1, features), np.float32), {id(classifier): {"zipmap": False}}
        opsets = {"": OPSET, "ai.onnx.ml": 3}
        added = skl2onnx.to_onnx(classifier, example, options=options, target_opset=opsets)
    except Exception as error:  # skl2onnx raises many kinds
        raise RuntimeError(f"{classifier} has no ONNX equivalent in skl2onnx: {error}") from error
    added.ir_version = graph.ir_version
    first, probabilities = added.graph.input[0].name, added.graph.output[-1].name
    others = [output.name for output in graph.graph.output if output.name != "features"]
    merged = onnx.compose.merge_models(
        graph, added, io_map=[("features", first)], outputs=[probabilities, *others], prefix2=""
    )
    merged.graph.node.append(onnx.helper.make_node("Identity", [probabilities], ["scores"]))
    next(each for each in merged.graph.output if each.name == probabilities).name = "scores"
    return merged
