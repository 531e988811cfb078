"""An ONNX graph as steps that depend on the input, and constants; quantizers recognised, whatever way they are written in."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import formats
from dse.imports import onnx_file
from formats import Format
from formats.errors import BitatlasError, InvalidValueError

#: operators that only move values about: of quantized ones, each goes along with its scale
MOVING = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Cast", "Dropout", "Gather", "Split")
#: the domain of steps that stand for a quantizer of a computed tensor
QUANTIZER = "bitatlas.quantizer"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator: where its inputs come from (empty where one is left out), and its attributes as Python has them."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def where(self) -> str:
        """The node, for messages."""
        return f"node {self.name or self.outputs[0]!r}"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredTensor:
    """Constant values that a quantizer made: float32, and the scale of each, of the same shape.

    ``format_name`` is None for integers wider than any format, as biases have them.
    """

    values: NDArray[np.float32]
    scales: NDArray[np.float32]
    format_name: str | None


@dataclass(frozen=True, kw_only=True)
class Quantizing:
    """What a quantizer of a computed tensor does."""

    format_name: str
    #: a float32 number
    scale: float

    @property
    def format(self) -> Format:
        """The format itself."""
        return formats.registry.scalar(self.format_name)


@dataclass(kw_only=True, eq=False)
class Graph:
    """What is known of a graph, filled in from its inputs on."""

    opset: int
    input: str
    output: str
    #: size of the batch axis where the file fixes it
    batch: int | None
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    #: constants that came out of quantizers
    stored: dict[str, StoredTensor] = field(default_factory=dict)
    #: quantizers of computed tensors, by the name of their output
    quantizers: dict[str, Quantizing] = field(default_factory=dict)
    #: names of the stored tensors that other constants were computed from
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: lowest and highest code of constant codes that were clipped
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: computed tensors that hold codes in the file and their values here: by name, scale and zero point
    coded: dict[str, tuple[float, int]] = field(default_factory=dict)
    #: readers in the file, by the name of what they read
    readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def constant(self, step: Step, position: int, what: str) -> NDArray[Any] | None:
        """Return an input that must be constant, or None where it is left out."""
        if position >= len(step.inputs) or not step.inputs[position]:
            return None
        if step.inputs[position] not in self.constants:
            raise InvalidValueError(f"{what} of {step.operator} must be stored, not computed ({step.where})")
        return self.constants[step.inputs[position]]

    def number(self, step: Step, position: int, what: str, default: float | None = None) -> float:
        """Return an input that must be one stored number."""
        found = self.constant(step, position, what)
        if found is None and default is not None:
            return default
        if found is None or found.size != 1:
            size = 0 if found is None else found.size
            raise InvalidValueError(f"{what} of {step.operator} must be one number, not {size} ({step.where})")
        return float(found.reshape(()).astype(np.float64))

    def quantize(self, step: Step, source: str, output: str, found: Quantizing) -> None:
        """Note a quantizer of a computed tensor."""
        self.steps.append(
            Step(name=step.name, operator="Quantize", domain=QUANTIZER, inputs=(source,), outputs=(output,), attributes={})
        )
        self.quantizers[output] = found

    def rename(self, step: Step) -> None:
        """Let a step's output be its first input."""
        self.steps.append(replace(step, operator="Identity", domain="", inputs=step.inputs[:1], attributes={}))

    def store(self, step: Step, tensor: StoredTensor) -> None:
        """Note a constant that a quantizer made."""
        name = step.outputs[0]
        self.stored[name] = tensor
        self.constants[name] = tensor.values
        self.origins[name] = self.origin(*step.inputs)

    def origin(self, *constants: str) -> tuple[str, ...]:
        """Return the names of the stored tensors that constants were computed from, in order."""
        return tuple(dict.fromkeys(name for constant in constants for name in self.origins.get(constant, (constant,))))


#: reads one step of a way of writing quantizers; False where it is not one
Handler = Callable[[Graph, Step], bool]


def read(model: onnx.ModelProto, handlers: Mapping[str, Handler]) -> Graph:
    """Return the graph of a model; ``handlers`` by operator name take the steps that belong to quantizers."""
    graph = _empty(model)
    for node in model.graph.node:
        if node.op_type == "Constant":
            graph.constants[node.output[0]] = _constant(node)
            continue
        step = _step(node)
        handler = handlers.get(step.operator)
        if handler is not None and handler(graph, step):
            continue
        present = [name for name in step.inputs if name]
        if present and all(name in graph.constants for name in present):
            _fold(graph, step, node)
            continue
        coded = [name for name in present if name in graph.coded]
        if coded and (step.operator not in (*MOVING, "MaxPool") or len(coded) > 1):
            raise BitatlasError(f"operators must read dequantized values, not codes as {step.operator} does ({step.where})")
        graph.steps.append(step)
        graph.coded.update({name: graph.coded[coded[0]] for name in step.outputs if coded})
    return graph


def _empty(model: onnx.ModelProto) -> Graph:
    proto = model.graph
    constants = {tensor.name: _to_array(tensor) for tensor in proto.initializer}
    inputs = proto.input
    if len(inputs) != 1 or len(proto.output) != 1:
        raise BitatlasError(f"model must have one input and one output, not {len(inputs)} and {len(proto.output)}")
    shape = inputs[0].type.tensor_type.shape.dim
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in proto.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return Graph(
        opset=onnx_file.opset(model),
        input=inputs[0].name,
        output=proto.output[0].name,
        batch=shape[0].dim_value if shape and shape[0].HasField("dim_value") else None,
        constants=constants,
        readers=readers,
        metadata={entry.key: entry.value for entry in model.metadata_props},
    )


def _to_array(tensor: onnx.TensorProto) -> NDArray[Any]:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        cause = str(error).strip().splitlines()[0][:200]
        raise BitatlasError(f"tensor of an ONNX model must be whole, not broken ({cause}): {tensor.name!r}") from None


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    (name, value), *_ = values.items()
    if name == "value":
        return _to_array(value)
    if name.startswith("value_float"):
        return np.array(value, np.float32)
    if name.startswith("value_int"):
        return np.array(value, np.int64)
    raise BitatlasError(f"a constant must be a tensor or numbers, not {name} (node {node.name or node.output[0]!r})")


def _step(node: onnx.NodeProto) -> Step:
    return Step(
        name=node.name,
        operator=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={attribute.name: _attribute(attribute) for attribute in node.attribute},
    )


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _fold(graph: Graph, step: Step, node: onnx.NodeProto) -> None:
    """Compute a step whose inputs are all constant; of quantized values that are only moved, the scales go along."""
    if step.domain:
        raise BitatlasError(f"operators on constants must be ONNX' own, not {step.domain}.{step.operator} ({step.where})")
    present = [name for name in step.inputs if name]
    inputs = {name: graph.constants[name] for name in present}
    results = _computed(node, inputs, graph.opset)
    graph.constants.update(zip(step.outputs, results, strict=False))
    graph.origins.update(dict.fromkeys(step.outputs, graph.origin(*present)))
    first = graph.stored.get(step.inputs[0])
    if first is not None and step.operator in MOVING:
        scales = _computed(node, inputs | {step.inputs[0]: first.scales}, graph.opset)
        for name, values, moved in zip(step.outputs, results, scales, strict=False):
            graph.stored[name] = StoredTensor(values=values, scales=moved, format_name=first.format_name)


def _computed(node: onnx.NodeProto, inputs: Mapping[str, NDArray[Any]], opset: int) -> list[NDArray[Any]]:
    def info(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_value_info(name, onnx.TypeProto()) for name in names]

    proto = helper.make_graph([node], "constants", info(inputs), info(name for name in node.output if name))
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)])
    try:
        found = ReferenceEvaluator(model).run(None, dict(inputs))
    except Exception as error:  # the evaluator fails with many types, all of them about the model
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        where = f"node {node.name or node.output[0]!r}"
        raise BitatlasError(f"operators on constants must be computable, not fail ({cause}) ({where})") from error
    return [np.asarray(value) for value in found]
