"""Which quantizer stands before each operand of a layer, and which quantizers nothing but layers need.

A layer's operand is quantized by the last quantizer before it, through operators that change no value or leave each on its grid.
Where only layers read what a quantizer makes, it goes into the assignment alone; another, such as one before an addition, stays a
part of the network, since without it the network would compute something else.
"""

from collections.abc import Mapping
from functools import cached_property

from dse.imports.graph import MOVING, QUANTIZER, Graph, Quantizing, Step
from dse.imports.layers import ImportedLayer, read_by

#: operators that give values of their input, in the order of their input's, or zero: they may change places with a quantizer
ORDERED = (*MOVING, "MaxPool", "GlobalMaxPool", "ReduceMax", "Expand", "Tile")
#: the same where zero is a level
ORDERED_WITH_ZERO = ("Relu", "Pad")
#: operators whose results are never negative
NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Abs", "Exp", "Sqrt", "HardSigmoid", "Softplus")


class Operands:
    """Quantizers of a graph as its layers see them."""

    def __init__(self, graph: Graph, layers: Mapping[str, ImportedLayer]) -> None:
        """Look at a graph and its layers by the name of their output."""
        self.graph, self.layers = graph, layers
        self.producers = {name: step for step in graph.steps for name in step.outputs}
        self.readers = read_by(graph)

    def before(self, tensor: str) -> Quantizing | None:
        """Return the quantizer on whose grid a computed tensor lies, or None."""
        step = self.producers.get(tensor)
        if step is None:
            return None
        if step.domain == QUANTIZER:
            return self.graph.quantizers[tensor]
        if step.operator == "Concat":
            found = {self.before(name) for name in step.inputs}
            return found.pop() if len(found) == 1 else None
        quantizing = self.before(step.inputs[0]) if step.inputs and step.operator in (*ORDERED, *ORDERED_WITH_ZERO) else None
        return quantizing if quantizing is not None and _may_swap(self.graph, step, quantizing) else None

    def after_relu(self, tensor: str) -> bool:
        """Whether a ReLU stands right before the last quantizer before a tensor."""
        step = self.producers.get(tensor)
        while step is not None and step.domain != QUANTIZER:
            step = self.producers.get(step.inputs[0])
        before = self.producers.get(step.inputs[0]) if step is not None else None
        return before is not None and before.operator == "Relu"

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """Outputs of the quantizers that stay a part of the network, in order."""
        return tuple(name for name in self.graph.quantizers if not self._for_layers_alone(name, self.graph.quantizers[name]))

    def cuts(self, tensor: str) -> bool:
        """Whether a quantizer is what keeps a computed tensor from being negative: then it is an activation function too."""
        if self.graph.quantizers[tensor].format.minimum < 0:
            return False
        step = self.producers.get(self.producers[tensor].inputs[0])
        while step is not None and step.operator in (*ORDERED, "AveragePool", "GlobalAveragePool", "ReduceMean"):
            step = self.producers.get(step.inputs[0])
        return step is not None and not _never_negative(self.graph, step)

    def _for_layers_alone(self, tensor: str, quantizing: Quantizing) -> bool:
        if tensor == self.graph.output:
            return False
        for step in self.readers.get(tensor, []):
            if step.domain == QUANTIZER:
                alone = self.graph.quantizers[step.outputs[0]] == quantizing
            elif step.outputs[0] in self.layers:
                alone = True
            elif _may_swap(self.graph, step, quantizing) and step.inputs[0] == tensor and tensor not in step.inputs[1:]:
                alone = all(self._for_layers_alone(name, quantizing) for name in step.outputs)
            else:
                alone = False
            if not alone:
                return False
        return True


def _may_swap(graph: Graph, step: Step, quantizing: Quantizing) -> bool:
    if step.domain:
        return False
    if step.operator == "Cast":
        return step.attributes.get("to") == 1
    if step.operator == "Pad" and not _pads_with_zero(graph, step):
        return False
    return step.operator in ORDERED or (step.operator in ORDERED_WITH_ZERO and bool((quantizing.format.values == 0).any()))


def _pads_with_zero(graph: Graph, step: Step) -> bool:
    """Whether a Pad is known to fill with zeros: then it may as well stand before a quantizer."""
    given = graph.constants.get(step.inputs[2]) if len(step.inputs) > 2 and step.inputs[2] else None
    named = len(step.inputs) > 2 and bool(step.inputs[2])
    return step.attributes.get("mode", "constant") != "constant" or not named or (given is not None and not given.any())


def _never_negative(graph: Graph, step: Step) -> bool:
    if step.domain == QUANTIZER:
        return graph.quantizers[step.outputs[0]].format.minimum >= 0
    if step.operator == "Clip":
        low = graph.constants.get(step.inputs[1]) if len(step.inputs) > 1 else None
        return low is not None and bool((low >= 0).all())
    return step.operator in NOT_NEGATIVE
