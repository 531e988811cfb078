"""Operands lowered by a target alone, without a network around them, and run by onnxruntime."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment
from dse.export.lowering import Lowering, Parts
from dse.network import Layer, Operand
from dse.problem import Problem, groups_of
from dse.ptq.step import LowRank, PreparedWeight
from dse.quantize import ActivationQuantizer, Scratch, StoredWeight
from dse.space import Space
from formats import Format
from formats.tensor_quantizer import EncodedTensor

Floats = NDArray[np.float32]


def model_of(parts: Parts, outputs: dict[str, int]) -> onnx.ModelProto:
    """Return the checked model of what was lowered: one vector ``x`` in, outputs by name with their numbers of axes."""
    nodes, names = list(parts.nodes), {}
    for number, (name, axes) in enumerate(outputs.items()):
        names[name] = helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"d{number}_{axis}" for axis in range(axes)])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "operands", [x], list(names.values()), parts.initializers)
    opsets = [helper.make_opsetid(domain, version) for domain, version in parts.opsets.items()]
    for function in parts.functions.values():
        function.opset_import[0].version = parts.opsets[""]
    version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    model = helper.make_model(graph, opset_imports=opsets, functions=list(parts.functions.values()), ir_version=version)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, x: Floats) -> dict[str, Floats]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


@dataclass(frozen=True)
class Operands:
    """Lowers operands one by one into one graph."""

    lowering: Lowering
    parts: Parts

    def weight(self, name: str, encoded: EncodedTensor, low_rank: LowRank | None = None) -> None:
        """Lower a weight; its values are the output ``name``."""
        prepared = PreparedWeight(encoded=encoded, low_rank=low_rank)
        stored = StoredWeight(prepared=prepared, values=torch.from_numpy(prepared.values()))
        assert not self.lowering.weight_refusal(stored)
        self.lowering.lower_weight(cast(Layer, SimpleNamespace(name=f"layer_{name}")), stored, name, self.parts)

    def activation(self, name: str, fmt: Format, scale: float) -> None:
        """Lower what quantizes ``x``; the quantized ``x`` is the output ``name``."""
        quantizer = quantizes(fmt, scale)
        assert not self.lowering.activation_refusal(quantizer)
        self.lowering.lower_activation(f"slot_{name}", quantizer, "x", name, self.parts)


def quantizes(fmt: Format, scale: float) -> ActivationQuantizer:
    operand = Operand(source="x", readers=1, overwritable=False)
    return ActivationQuantizer(format=fmt, scale=scale, operand=operand, scratch=Scratch())


@pytest.fixture(scope="session")
def start() -> Callable[[Lowering], Operands]:
    """Begin a graph for one target."""
    return lambda lowering: Operands(lowering, Parts())


@pytest.fixture(scope="session")
def make_model() -> Callable[[Parts, dict[str, int]], onnx.ModelProto]:
    """See ``model_of``."""
    return model_of


@pytest.fixture(scope="session")
def run_model() -> Callable[[onnx.ModelProto, Floats], dict[str, Floats]]:
    """Run a model by onnxruntime."""
    return run


@pytest.fixture(scope="session")
def make_quantizer() -> Callable[[Format, float], ActivationQuantizer]:
    """Return what quantizes an activation."""
    return quantizes


@pytest.fixture(scope="session")
def same_bits() -> Callable[[Any, Any], bool]:
    """Compare floats by their bits but for the sign of a zero, which graphs do not all keep."""
    return lambda one, other: np.array_equal((one + np.float32(0)).view(np.uint32), (other + np.float32(0)).view(np.uint32))


@pytest.fixture(scope="session")
def uniform() -> Callable[[Experiment, str, str], Assignment]:
    """Make the assignment of two quantizers to every layer."""
    return lambda experiment, weight, activation: experiment.preparation.uniform(
        "m", "d", parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
    )


@pytest.fixture(scope="session")
def mixed() -> Callable[[Experiment], Assignment]:
    """Make an assignment with another pair of formats in every layer."""

    def make(experiment: Experiment) -> Assignment:
        names = ("int4", "e2m1", "int8", "pot4", "ternary", "post4", "e3m2", "int5", "binary", "int4_narrow", "mxfp4:block")
        weights = (*names, "tritplanes:group32", "nvfp4:block", "e4m3:group16", "int2:channel:mse:power_of_two")
        activations = (*names[:10], "float8_e5m2", "tanq4", "nf4")
        space = Space(groups=groups_of(experiment, (), automatic=False), weights=weights, activations=activations)
        problem = Problem(experiment=experiment, space=space, objectives=(), bounds=())
        layers = experiment.preparation.network.layers
        params = {f"{layer.name}/weight": weights[i % len(weights)] for i, layer in enumerate(layers)}
        params |= {f"{layer.name}/activation": activations[(i * 5) % 7] for i, layer in enumerate(layers)}
        return problem.assignment(params)

    return make
