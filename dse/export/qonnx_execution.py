"""Run an exported QONNX model by the package qonnx, operator by operator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import onnx
from numpy.typing import NDArray

from formats.errors import require

#: version of ONNX' file format that every onnxruntime of this project reads
IR_VERSION = 10


def run(model: onnx.ModelProto, images: NDArray[np.float32], batch: int = 64) -> NDArray[np.float32]:
    """Run a model with one input and one output on (N, …) samples and return its outputs, float32 of shape (N, …)."""
    require("qonnx", "execution of QONNX models", extra="flows")
    parts = [images[i : i + batch] for i in range(0, len(images), batch)]
    with readable():
        return np.concatenate([_run(model, part) for part in parts])


def _run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    wrapper = with_batch(ModelWrapper(model, make_deepcopy=True), len(images)).transform(InferShapes())
    given, made = wrapper.graph.input[0].name, wrapper.graph.output[0].name
    return np.asarray(execute_onnx(wrapper, {given: images})[made], dtype=np.float32)


def with_batch(wrapper: Any, samples: int) -> Any:
    """Set the number of samples of a wrapped model's input and output.

    qonnx' own ``ChangeBatchSize`` changes the first number of every shape that is stored, those of weights included.
    """
    for value in (*wrapper.graph.input, *wrapper.graph.output):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = samples
    return wrapper


@contextmanager
def readable() -> Iterator[None]:
    """Let qonnx make models of one operator that onnxruntime reads: the newest onnx may be ahead of it."""
    with mock.patch.object(onnx, "IR_VERSION", IR_VERSION):
        yield
