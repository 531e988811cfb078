"""Quantized models made by others and by hand, and what is imported of them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dse.data import Dataset
from dse.evaluate import quantized_logits
from dse.experiment import Experiment, prepare
from dse.export import qonnx_execution, runtime
from dse.imports import assignments, onnx_file
from dse.imports.assignments import Imported
from dse.imports.model import ImportedModel, read
from dse.models.loading import of_module

SAMPLES = 48


@dataclass(frozen=True, kw_only=True, eq=False)
class Import:
    """An imported model, ready to be evaluated."""

    path: Path
    model: ImportedModel
    experiment: Experiment
    imported: Imported
    images: NDArray[np.float32]

    @property
    def quantizers(self) -> dict[str, tuple[str, str, str]]:
        """Format and granularity of each layer's weight, its activation's format, and its accumulator."""
        layers = self.imported.assignment.layers
        return {
            name: (":".join(str(layer.weight).split(":")[:2]), str(layer.activation).split(":")[0], layer.accumulator)
            for name, layer in layers.items()
        }

    def logits(self) -> NDArray[np.float32]:
        """Logits of the imported assignment."""
        return quantized_logits(self.experiment.preparation, self.imported.assignment, self.images)

    def own_logits(self) -> NDArray[np.float32]:
        """Logits of the file itself, by onnxruntime or qonnx."""
        model = onnx_file.read(self.path)
        model.ir_version = min(model.ir_version, 10)
        if any(node.domain.startswith("qonnx") for node in model.graph.node):
            return qonnx_execution.run(model, self.images, self.model.graph.batch or 64)
        return runtime.run(model.SerializeToString(), self.images, self.model.graph.batch or 64)

    def assert_same(self, step: float = 0.0) -> None:
        """Logits are equal but for float rounding; where an output is rounded by ``step``, one in a hundred may be one step off."""
        found, expected = self.logits(), self.own_logits()
        far = np.abs(found - expected) > 1e-5 * max(1.0, float(np.abs(expected).max()))
        assert np.ptp(expected) > 0.1
        assert far.mean() <= (0.01 if step else 0)
        assert np.abs(found - expected).max() <= 1e-4 + step * 1.001


@pytest.fixture(scope="session")
def import_file(digits: Dataset) -> Callable[[Path], Import]:
    """Import a model of digits from a file."""

    def run(path: Path) -> Import:
        model = read(path)
        experiment = prepare(of_module(str(path), model.module, digits))
        imported = assignments.assignment(model, experiment.preparation.network, str(path), "digits")
        images = digits.validation.images[:SAMPLES]
        return Import(path=path, model=model, experiment=experiment, imported=imported, images=images)

    return run


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a torch module with torch alone, for batches of any size."""

    def run(module: torch.nn.Module, **options: Any) -> Path:
        path = tmp_path_factory.mktemp("float") / "model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                (torch.zeros(2, 1, 8, 8),),
                str(path),
                dynamo=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
                **options,
            )
        return path

    return run


@pytest.fixture
def by_hand(tmp_path: Path) -> Callable[..., Path]:
    """Write a model of (batch, 1, 8, 8) images and 10 logits from nodes and stored tensors."""

    def write(nodes: Sequence[onnx.NodeProto], stored: dict[str, Any], opset: int = 21, *domains: str) -> Path:
        graph = helper.make_graph(
            nodes,
            "by_hand",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
            [
                tensor if isinstance(tensor, onnx.TensorProto) else numpy_helper.from_array(np.asarray(tensor), name)
                for name, tensor in stored.items()
            ],
        )
        opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        path = tmp_path / "by_hand.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
        return path

    return write
