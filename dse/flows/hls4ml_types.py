"""Types of hls4ml's layers that hold every value exactly, from ranges followed through the graph.

hls4ml finds such types itself but in three cases that matter here (release 1.3): a result that others read beside a quantizer is
rounded for all of them unless its type is given, ``Relu`` without a quantizer behind it takes the default type, and the quotient of
an average gets too few bits where its divisor is no power of two. Types of sums are given too: they are narrower than what hls4ml
finds, since all weights are looked at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dse.flows.fixed_point import FixedPoint, Range, whole_numbers
from formats.errors import BitatlasError

#: types of one operator, by hls4ml's names: ``result``, ``accum``
Precision = dict[str, str]


#: bits below the finest quantizer's LSB that an input is given which something else reads too
SPARE_BITS = 4


@dataclass(frozen=True, kw_only=True)
class InputType:
    """The type of the network's input and what is done with numbers that it does not hold."""

    type: FixedPoint
    rounding: str
    overflow: str

    @property
    def text(self) -> str:
        """What hls4ml is told."""
        return f"{str(self.type)[:-1]},{self.rounding},{self.overflow}>"


def input_type(model: onnx.ModelProto, samples: NDArray[np.float32]) -> InputType:
    """Return the type of the input: that of the quantizer that reads it, where it is the only one and nothing else does.

    Else it has ``SPARE_BITS`` below the finest of them, and holds the largest of ``samples``.
    """
    graph = model.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers = [node for node in graph.node if graph.input[0].name in node.input]
    quantizers = [node for node in readers if node.op_type == "Quant"]
    types = [quantizer_type(node, stored) for node in quantizers]
    narrow = any(_attribute(node, "narrow", 0) for node in quantizers)
    if len(readers) == len(quantizers) and len(set(types)) == 1:
        return InputType(type=types[0], rounding="RND_CONV", overflow="SAT_SYM" if narrow else "SAT")
    exponent = min((one.exponent for one in types), default=0) - SPARE_BITS
    ends = [int(np.floor(np.ldexp(float(samples.min()), -exponent))), int(np.ceil(np.ldexp(float(samples.max()), -exponent)))]
    held = Range(low=min(ends[0], 0), high=max(ends[1], 0), exponent=exponent)
    return InputType(type=held.type, rounding="RND_CONV", overflow="SAT")


def precisions(model: onnx.ModelProto, given: FixedPoint) -> dict[str, Precision]:
    """Return the types to give to hls4ml, by operator, for a graph that ``hls4ml_graph.prepare`` has made and its input's type."""
    found = _Ranges(graph=model.graph, ranges={model.graph.input[0].name: given.range})
    for node in model.graph.node:
        found.follow(node)
    return {node.name: types for node in model.graph.node if (types := found.precision(node))}


def quantizer_type(node: onnx.NodeProto, stored: Mapping[str, NDArray[np.float32]]) -> FixedPoint:
    """Return the type that a ``Quant`` with one power of two rounds to."""
    scale, bits = float(stored[node.input[1]].item()), int(stored[node.input[3]].item())
    return FixedPoint(bits=bits, exponent=int(np.frexp(scale)[1]) - 1, signed=bool(_attribute(node, "signed", 1)))


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    return next((helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


@dataclass(kw_only=True)
class _Ranges:
    """Ranges of a graph's tensors, found operator by operator."""

    graph: onnx.GraphProto
    stored: dict[str, NDArray[np.float32]] = field(init=False)
    #: values behind the quantizers of constants
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is stored."""
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}

    def follow(self, node: onnx.NodeProto) -> None:
        """Find the range of an operator's result."""
        output = node.output[0]
        if node.op_type == "Quant" and node.input[0] in self.stored:
            self.constants[output] = self.stored[node.input[0]]
        elif node.op_type == "Quant":
            self.ranges[output] = quantizer_type(node, self.stored).range
        elif node.op_type in ("Conv", "MatMul"):
            self.ranges[output] = self._products(node)
        elif node.op_type == "Add":
            self.ranges[output] = self._either(node.input[0]) + self._either(node.input[1])
        elif node.op_type == "Relu":
            read = self.ranges[node.input[0]]
            self.ranges[output] = Range(low=max(read.low, 0), high=max(read.high, 0), exponent=read.exponent)
        elif node.op_type == "AveragePool":
            self.ranges[output] = self._average(node)
        else:
            self.ranges[output] = self.ranges[node.input[0]]

    def precision(self, node: onnx.NodeProto) -> Precision:
        """Return the types to be given for an operator."""
        after = self._readers(node.output[0])
        result = self.ranges.get(node.output[0])
        if result is None:
            return {}
        rounded_alone = len(after) == 1 and after[0].op_type == "Quant"
        if node.op_type == "AveragePool":
            return {"accum": str(self._sum(node).type), "result": str(result.type)}
        if node.op_type == "Conv":
            return {"accum": str(result.type)} | ({} if rounded_alone else {"result": str(result.type)})
        if node.op_type == "Relu" and not rounded_alone:
            return {"result": str(result.type)}
        if node.op_type == "MatMul":
            if len(after) == 1 and after[0].op_type == "Add" and self.constants.keys() & set(after[0].input):
                # the bias becomes a part of the product
                result, after = result | self.ranges[after[0].output[0]], self._readers(after[0].output[0])
            if len(after) > 1 and any(other.op_type == "Quant" for other in after):
                raise BitatlasError(
                    f"result of a linear layer must have one reader alone for hls4ml, not {len(after)} ({node.name})"
                )
            return {"accum": str(result.type)}
        return {}

    def _readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if name in node.input]

    def _either(self, name: str) -> Range:
        if name not in self.constants:
            return self.ranges[name]
        whole, exponent = whole_numbers(self.constants[name])
        return Range(low=int(whole.min()), high=int(whole.max()), exponent=exponent)

    def _products(self, node: onnx.NodeProto) -> Range:
        """Return the range of sums of products: every element free to take any value of its range, zero for padding among them."""
        read = self.ranges[node.input[0]]
        whole, exponent = whole_numbers(self.constants[node.input[1]])
        rows = whole.reshape(len(whole), -1) if node.op_type == "Conv" else whole.T
        ends = [(rows.astype(object) * end) for end in (min(read.low, 0), max(read.high, 0))]
        low, high = np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
        unit = read.exponent + exponent
        sums = Range(low=int(low.min()), high=int(high.max()), exponent=unit)
        if len(node.input) < 3:
            return sums
        # a register begins with the bias and must hold every sum on the way
        return sums | (sums + self._either(node.input[2]))

    def _sum(self, node: onnx.NodeProto) -> Range:
        """Return the range of the sums that an average divides, in a unit fine enough for the quotient."""
        read, count = self.ranges[node.input[0]], math.prod(_sizes(node))
        sums = Range(low=min(read.low, 0) * count, high=max(read.high, 0) * count, exponent=read.exponent)
        return sums.at(read.exponent - self._quotient_bits(node))

    def _average(self, node: onnx.NodeProto) -> Range:
        read = self.ranges[node.input[0]]
        return read.at(read.exponent - self._quotient_bits(node))

    def _quotient_bits(self, node: onnx.NodeProto) -> int:
        """Return how many bits a quotient needs below the unit of its dividend.

        By a power of two it is exact. By other numbers it is cut off below the finest boundary of the quantizers that read it: a
        quotient that is no boundary lies at least the boundaries' unit over the divisor away from the next one, so it stays on
        its side.
        """
        count = math.prod(_sizes(node))
        if count & (count - 1) == 0:
            return count.bit_length() - 1
        exponent = self.ranges[node.input[0]].exponent
        readers = self._readers(node.output[0])
        finest = min((quantizer_type(one, self.stored).exponent - 1 for one in readers if one.op_type == "Quant"), default=exponent)
        return count.bit_length() + max(exponent - finest, 0)


def _sizes(node: onnx.NodeProto) -> list[int]:
    sizes = _attribute(node, "kernel_shape", [])
    assert isinstance(sizes, list)
    return sizes
