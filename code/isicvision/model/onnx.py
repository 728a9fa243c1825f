"""A whole model as one ONNX graph, checked against the model it came from."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import: else it reports to its maker
import onnxruntime

from ..files import user_path
from .batches import BATCH
from .outliers import WithDistance

if TYPE_CHECKING:
    from .classifier import ImageClassifier

OPSET = 18
TOLERANCE = 1e-4


def write_onnx(model: ImageClassifier, path: str | Path) -> Path:
    """Write an `ImageClassifier` to `path`; see `ImageClassifier.to_onnx`, which calls this."""
    path = user_path(path)
    if model.metadata["training"] is None and model.classifier is not None:
        raise RuntimeError("the model is not trained yet: call fit first")
    names, module = ["scores" if model.classifier is None else "features"], model.scoring_module()
    if model.outliers is not None:
        names, module = [*names, "distance"], WithDistance(module, model.network, model.outliers)
    graph = network_graph(module, model.image_size, names)
    if model.classifier is not None:
        graph = _append_classifier(graph, model)
    graph.producer_name = "isicvision"
    onnx.checker.check_model(graph)
    onnx.save(graph, path)
    _compare(model, path)
    return path


def network_graph(
    module: nn.Module, size: int, outputs: Sequence[str], batch_size: int | None = None
) -> onnx.ModelProto:
    """Translate a module to ONNX: uint8 images of shape (n, size, size, 3), called ``images``, to `outputs`.

    These are names, one for each tensor that the module gives; n is `batch_size`, or any number if that is None.
    """
    device = next(module.parameters()).device
    example = torch.zeros((batch_size or 2, size, size, 3), dtype=torch.uint8, device=device)
    shapes = None if batch_size else ({0: torch.export.Dim("images", min=1, max=4096)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            module.eval(),
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

    Parameters
    ----------
    size
        Side of the images, in pixels.
    """

    def __init__(self, module: nn.Module, size: int):
        super().__init__()
        self.module = module
        plain = copy.deepcopy(module)
        for layer in plain.modules():
            if hasattr(layer, "inplace"):
                layer.inplace = False  # the export takes twice as long to undo it
        graph = network_graph(plain, size, ["result"], BATCH).SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map at most `BATCH` images as `module` does."""
        missing = BATCH - len(images)  # one size for all halves the seconds of the export
        whole = np.pad(images.numpy(), [(0, missing), (0, 0), (0, 0), (0, 0)])
        return torch.from_numpy(self._session.run(["result"], {"images": whole})[0][: len(images)])


def _append_classifier(graph, model):
    import skl2onnx

    example = np.zeros((1, model.backbone.features), np.float32)
    try:
        classifier = skl2onnx.to_onnx(
            model.classifier,
            example,
            options={id(model.classifier): {"zipmap": False}},
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
    except Exception as error:  # skl2onnx raises many kinds
        raise RuntimeError(f"{model.classifier} has no ONNX equivalent in skl2onnx: {error}") from error
    classifier.ir_version = graph.ir_version
    features, probabilities = classifier.graph.input[0].name, classifier.graph.output[-1].name
    others = [output.name for output in graph.graph.output if output.name != "features"]
    merged = onnx.compose.merge_models(
        graph, classifier, io_map=[("features", features)], outputs=[probabilities, *others], prefix2=""
    )
    for node in merged.graph.node:
        node.output[:] = ["scores" if name == probabilities else name for name in node.output]
        node.input[:] = ["scores" if name == probabilities else name for name in node.input]
    for output in merged.graph.output:
        output.name = "scores" if output.name == probabilities else output.name
    return merged


def _compare(model, path):
    """Raise unless ONNX Runtime gives what the model gives, on noise: worse than any image."""
    noise = np.random.default_rng(0).integers(0, 256, (3, model.image_size, model.image_size, 3), np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = {"scores": model.scores(noise)}
    if model.outliers is not None:
        expected["distance"] = model.outlier_distance(noise)
    for name, values in expected.items():
        difference = np.abs(session.run([name], {"images": noise})[0] - values)
        difference = (difference / np.maximum(1, values)).max()  # a distance, unlike a score, may be large
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"the ONNX graph's {name} differs from the model's by {difference:.2g}: not exported"
            )
