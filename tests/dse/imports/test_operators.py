"""Every operator of the table gives what onnxruntime gives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from dse.imports import graph as graphs
from dse.imports import layers, qdq
from dse.imports.module import ImportedNetwork
from dse.imports.operands import Operands
from dse.imports.operators import LAYERS, OPERATORS
from tests.formats.samples import normal

IMAGE, TOKENS, VECTOR = (2, 7, 6), (5, 6), (6,)
INT, FLOAT = np.int64, np.float32


def ints(*values: int) -> np.ndarray:
    return np.array(values, INT)


#: operator, shape of a sample, attributes, stored inputs after the first (None where one is left out), opset
CASES: list[tuple[str, tuple[int, ...], dict[str, Any], Sequence[Any], int]] = [
    *[(name, VECTOR, {}, (), 21) for name in ("Abs", "Cos", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity", "Mish", "Neg")],
    *[(name, VECTOR, {}, (), 21) for name in ("Reciprocal", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh", "Dropout", "Elu")],
    *[(name, VECTOR, {}, (normal(6, seed=1),), 21) for name in ("Add", "Div", "Max", "Min", "Mul", "Sub")],
    ("Add", IMAGE, {}, (normal(2, 1, 1, seed=1),), 13),
    ("AveragePool", IMAGE, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}, (), 21),
    ("AveragePool", IMAGE, {"kernel_shape": [3, 3], "pads": [0, 0, 1, 2], "count_include_pad": 1}, (), 13),
    (
        "BatchNormalization",
        IMAGE,
        {"epsilon": 1e-3},
        (normal(2), normal(2, seed=1), normal(2, seed=2), np.abs(normal(2, seed=3))),
        15,
    ),
    ("Cast", VECTOR, {"to": TensorProto.FLOAT}, (), 21),
    ("Clip", VECTOR, {}, (FLOAT(-0.5), FLOAT(0.25)), 21),
    ("Clip", VECTOR, {}, (None, FLOAT(0.25)), 13),
    ("Concat", TOKENS, {"axis": 2}, (normal(3, 5, 2),), 21),
    ("Conv", IMAGE, {"pads": [1, 1, 1, 1], "strides": [2, 1], "group": 2}, (normal(4, 1, 3, 3), normal(4)), 21),
    ("Conv", IMAGE, {"pads": [0, 1, 2, 1], "dilations": [2, 1]}, (normal(3, 2, 2, 3),), 13),
    ("Conv", IMAGE, {"auto_pad": "SAME_UPPER", "strides": [2, 2], "kernel_shape": [2, 3]}, (normal(3, 2, 2, 3),), 13),
    ("Conv", IMAGE, {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 4]}, (normal(3, 2, 2, 4),), 13),
    ("Conv", IMAGE, {"auto_pad": "VALID", "kernel_shape": [2, 3]}, (normal(3, 2, 2, 3),), 13),
    ("Conv", (2, 9), {"pads": [1, 0]}, (normal(4, 2, 3), normal(4)), 21),
    ("Elu", VECTOR, {"alpha": 0.5}, (), 21),
    ("Expand", (1, 6), {}, (ints(1, 4, 6),), 21),
    ("Flatten", IMAGE, {}, (), 21),
    ("Flatten", IMAGE, {"axis": 2}, (), 21),
    ("Gather", TOKENS, {"axis": 1}, (INT(-2),), 21),
    ("Gather", TOKENS, {"axis": 1}, (ints(3, 0, -1),), 13),
    ("Gelu", VECTOR, {}, (), 20),
    ("Gelu", VECTOR, {"approximate": "tanh"}, (), 20),
    ("Gemm", VECTOR, {}, (normal(6, 4), normal(4)), 21),
    ("Gemm", VECTOR, {"transB": 1}, (normal(4, 6), normal(1, 4)), 13),
    ("GlobalAveragePool", IMAGE, {}, (), 21),
    ("GlobalMaxPool", IMAGE, {}, (), 21),
    ("HardSigmoid", VECTOR, {"alpha": 0.25, "beta": 0.4}, (), 21),
    ("LayerNormalization", TOKENS, {"epsilon": 1e-4}, (normal(6), normal(6, seed=1)), 17),
    ("LayerNormalization", TOKENS, {"axis": 1}, (normal(5, 6),), 17),
    ("LeakyRelu", VECTOR, {"alpha": 0.2}, (), 21),
    ("MatMul", TOKENS, {}, (normal(6, 3),), 21),
    ("MaxPool", IMAGE, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, (), 21),
    ("MaxPool", IMAGE, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, (), 13),
    ("MaxPool", IMAGE, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, (), 13),
    ("Pad", IMAGE, {}, (ints(0, 0, 1, 0, 0, 0, 2, 3), FLOAT(0.5)), 21),
    ("Pad", IMAGE, {}, (ints(1, 2), None, ints(-1)), 21),
    ("Pow", VECTOR, {}, (FLOAT(2),), 21),
    ("ReduceMax", TOKENS, {"keepdims": 0}, (ints(1),), 20),
    ("ReduceMean", IMAGE, {"keepdims": 0}, (ints(-1, -2),), 21),
    ("ReduceMean", IMAGE, {"axes": [2, 3]}, (), 13),
    ("ReduceSum", TOKENS, {}, (ints(2),), 13),
    ("Reshape", IMAGE, {}, (ints(0, -1, 3),), 21),
    ("Slice", IMAGE, {}, (ints(1, -5), ints(2, 99), ints(1, 2), ints(1, 2)), 21),
    ("Softmax", TOKENS, {}, (), 21),
    ("Softmax", TOKENS, {"axis": 1}, (), 13),
    ("Split", TOKENS, {"axis": 2}, (ints(2, 4),), 21),
    ("Squeeze", (1, 6), {}, (ints(1),), 21),
    ("Transpose", IMAGE, {"perm": [0, 3, 1, 2]}, (), 21),
    ("Unsqueeze", VECTOR, {}, (ints(1, -1),), 21),
]
#: operators that other tests see: they need computed shapes, conditions, positive inputs or an operator set ahead of onnxruntime
ELSEWHERE = {"Shape", "Where", "Log", "Sqrt", "Swish"}


def model_of(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], stored: dict[str, Any], opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def by_torch(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    graph = graphs.read(model, qdq.HANDLERS)
    found = layers.find(graph)
    with torch.no_grad():
        return ImportedNetwork(graph, found, Operands(graph, found))(torch.from_numpy(x)).numpy()


def by_onnxruntime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[4]}")
def test_an_operator_gives_what_onnxruntime_gives(case: Any) -> None:
    operator, shape, attributes, others, opset = case
    stored = {f"c{number}": value for number, value in enumerate(others) if value is not None}
    names = ["x", *(f"c{number}" if value is not None else "" for number, value in enumerate(others))]
    outputs = ["y", "z"] if operator == "Split" else ["y"]
    model = model_of([helper.make_node(operator, names, outputs, **attributes)], shape, stored, opset)
    x = normal(3, *shape)
    np.testing.assert_allclose(by_torch(model, x), by_onnxruntime(model, x), rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case() -> None:
    assert {case[0] for case in CASES} | ELSEWHERE == set(OPERATORS) | set(LAYERS)


def test_computed_shapes() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Unsqueeze", ["batch", "axis"], ["batches"]),
        helper.make_node("Slice", ["shape", "two", "three"], ["width"]),
        helper.make_node("Mul", ["width", "half"], ["halves"]),
        helper.make_node("Div", ["halves", "width"], ["twice"]),
        helper.make_node("Concat", ["batches", "twice", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["reshaped"]),
        helper.make_node("Concat", ["batches", "one", "one"], ["tokens"], axis=0),
        helper.make_node("Expand", ["class", "tokens"], ["expanded"]),
        helper.make_node("Add", ["reshaped", "expanded"], ["y"]),
    ]
    stored = {"zero": INT(0), "axis": ints(0), "two": ints(2), "three": ints(3), "half": ints(2), "minus": ints(-1), "one": ints(1)}
    model = model_of(nodes, (3, 4), stored | {"class": normal(1, 1, 6)}, 21)
    x = normal(5, 3, 4)
    np.testing.assert_array_equal(by_torch(model, x), by_onnxruntime(model, x))


def test_conditions_and_positive_inputs() -> None:
    nodes = [
        helper.make_node("Abs", ["x"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["root"]),
        helper.make_node("Log", ["positive"], ["logarithm"]),
        helper.make_node("Where", ["mask", "root", "logarithm"], ["y"]),
    ]
    model = model_of(nodes, VECTOR, {"mask": np.array([True, False, True, True, False, False])}, 21)
    x = normal(4, 6)
    np.testing.assert_allclose(by_torch(model, x), by_onnxruntime(model, x), rtol=1e-6)


def test_swish_is_x_times_its_sigmoid() -> None:
    x = normal(4, 6)
    found = by_torch(model_of([helper.make_node("Swish", ["x"], ["y"], alpha=2.0)], VECTOR, {}, 24), x)
    np.testing.assert_allclose(found, x / (1 + np.exp(-2 * x)), rtol=1e-5)


def test_a_stored_shape_with_the_batch_that_the_file_fixes_holds_for_others() -> None:
    model = model_of([helper.make_node("Reshape", ["x", "shape"], ["y"])], (2, 3), {"shape": ints(4, 6)}, 21)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    assert by_torch(model, normal(7, 2, 3)).shape == (7, 6)


def test_constants_are_computed_once() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Mul", ["stored", "two"], ["twice"]),
        helper.make_node("Transpose", ["twice"], ["turned"]),
        helper.make_node("MatMul", ["x", "turned"], ["product"]),
        helper.make_node("Add", ["bias", "product"], ["y"]),
    ]
    stored = {"stored": normal(4, 6), "bias": normal(4)}
    model = model_of(nodes, VECTOR, stored, 21)
    graph = graphs.read(model, {})
    found = layers.find(graph)
    assert [(step.operator, step.outputs[0]) for step in graph.steps] == [("MatMul", "product"), ("Identity", "y")]
    np.testing.assert_array_equal(found["product"].weight, 2 * stored["stored"])
    np.testing.assert_array_equal(found["product"].bias, stored["bias"])
    x = normal(3, 6)
    np.testing.assert_allclose(by_torch(model, x), by_onnxruntime(model, x), rtol=1e-5)
