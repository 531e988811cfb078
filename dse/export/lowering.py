"""What export targets that lower slots are made of: how an operand becomes operators of ONNX, and what that adds to a graph."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import helper

from dse.network import Layer
from dse.quantize import ActivationQuantizer, StoredWeight


@dataclass(kw_only=True)
class Parts:
    """What lowering adds to a graph."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    functions: dict[str, onnx.FunctionProto] = field(default_factory=dict)
    #: versions of operator sets that the nodes need, by domain; the highest asked for wins
    opsets: dict[str, int] = field(default_factory=dict)

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return that."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", domain=domain, **attributes))
        return output

    def store(self, tensor: onnx.TensorProto) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(tensor)
        return str(tensor.name)

    def call(self, function: onnx.FunctionProto, inputs: list[str], output: str) -> str:
        """Add a call of a function of the model."""
        self.functions[function.name] = function
        return self.add(function.name, inputs, output, domain=function.domain)

    def need(self, domain: str, version: int) -> None:
        """Ask for an operator set of at least this version; the empty domain is ONNX' own."""
        self.opsets[domain] = max(version, self.opsets.get(domain, 0))


@dataclass(frozen=True, kw_only=True)
class Lowering:
    """A way to write quantized operands in ONNX, by the name of its target."""

    name: str
    summary: str
    #: why a stored weight cannot be written, as "exported by NAME must be …, not …"; empty where it can
    weight_refusal: Callable[[StoredWeight], str]
    #: the same for what quantizes an activation
    activation_refusal: Callable[[ActivationQuantizer], str]
    #: (layer, weight, name of the output, parts): adds nodes that make the quantized weight, float32
    lower_weight: Callable[[Layer, StoredWeight, str, Parts], None]
    #: (prefix for names, quantizer, name of the input, name of the output, parts): adds nodes that quantize, float32 to float32
    lower_activation: Callable[[str, ActivationQuantizer, str, str, Parts], None]
