"""An imported graph as a torch module: the float network whose weights are what the model's codes stand for."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dse.imports import operators, shapes
from dse.imports.graph import QUANTIZER, Graph, Quantizing, Step
from dse.imports.layers import ImportedLayer
from dse.imports.operands import Operands
from formats.boundaries import boundaries, level_codes
from formats.errors import BitatlasError
from formats.names import unknown_name

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


class ImportedNetwork(nn.Module):
    """Runs the steps of a graph in order."""

    def __init__(self, graph: Graph, layers: Mapping[str, ImportedLayer], operands: Operands) -> None:
        """Make a module of every step."""
        super().__init__()
        self._input, self._output = graph.input, graph.output
        #: module, where its inputs come from, names of its outputs
        self._plan: list[tuple[nn.Module, tuple[Any, ...], tuple[str, ...]]] = []
        for number, step in enumerate(graph.steps):
            module, inputs = _module(graph, step, layers, operands)
            path = layers[step.outputs[0]].path if step.outputs[0] in layers else f"{step.operator}_{number}"
            _place(self, path, module)
            self._plan.append((module, inputs, step.outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Return the output for (N, …) samples, float32."""
        known: dict[str, Any] = {self._input: images}
        for module, inputs, outputs in self._plan:
            found = module(*[_resolved(given, known, images) for given in inputs])
            known.update(zip(outputs, found, strict=False) if isinstance(found, tuple) else [(outputs[0], found)])
        result: Tensor = known[self._output]
        return result


class _Batched(list[int]):
    """A stored shape whose first axis is the batch's, of a size that the file fixes."""


def _resolved(given: Any, known: Mapping[str, Any], images: Tensor) -> Any:
    if isinstance(given, str):
        return known[given]
    return [images.shape[0], *given[1:]] if isinstance(given, _Batched) else given


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register a module under a dotted path, making what lies between."""
    *owners, last = path.split(".")
    for part in owners:
        if part not in root._modules:
            root.add_module(_free(root, part), nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    root.add_module(_free(root, last), module)


def _free(owner: nn.Module, name: str) -> str:
    if hasattr(owner, name):
        raise BitatlasError(f"name of a layer must be none of a torch module's own, not {name!r}; rename the node")
    return name


def _module(graph: Graph, step: Step, layers: Mapping[str, ImportedLayer], operands: Operands) -> tuple[nn.Module, tuple[Any, ...]]:
    output = step.outputs[0]
    if step.domain == QUANTIZER:
        return _quantizer(graph.quantizers[output], output in operands.kept, operands.cuts(output)), step.inputs
    if output in layers:
        layer = layers[output]
        if layer.kind == "product":
            return _Product(), step.inputs
        return _Layer(layer), step.inputs[:1]
    operator = operators.OPERATORS.get(step.operator) if not step.domain else None
    if operator is None:
        raise _unsupported(step)
    if step.operator == "BatchNormalization" and _after_quantized(step, layers):
        return _normalisation(graph, step), step.inputs[:1]
    return _Operator(graph, step, operator), tuple(_input(graph, step, position, operator) for position in range(len(step.inputs)))


def _unsupported(step: Step) -> BitatlasError:
    known = [*operators.OPERATORS, *operators.LAYERS, "QuantizeLinear", "DequantizeLinear", "Quant", "FloatQuant", "BipolarQuant"]
    name = f"{step.domain}.{step.operator}" if step.domain else step.operator
    return unknown_name("operator of an ONNX model", name, known, see=f" ({step.where})")


def _input(graph: Graph, step: Step, position: int, operator: operators.Operator) -> Any:
    """Return the name of a computed input, what a stored one is, or None for one left out."""
    name = step.inputs[position]
    if not name:
        return None
    if name not in graph.constants:
        return name
    value = graph.constants[name]
    if step.operator == "Reshape" and position == 1 and graph.batch and value.size and value.flat[0] == graph.batch:
        return _Batched(value.tolist())
    return value


class _Operator(nn.Module):
    """An operator of the table; stored tensors that it computes with are buffers."""

    def __init__(self, graph: Graph, step: Step, operator: operators.Operator) -> None:
        super().__init__()
        self.step, self.operator = step, operator
        self.shape_function = shapes.OPERATORS.get(step.operator)
        for position in operator.tensors[: len(step.inputs)]:
            if step.inputs[position] in graph.constants:
                self.register_buffer(f"constant_{position}", _tensor(graph.constants[step.inputs[position]]))

    def forward(self, *inputs: Any) -> Any:
        if self.shape_function is not None and not any(isinstance(given, Tensor) for given in inputs):
            return self.shape_function(self.step.attributes, *[shapes.as_sizes(given) for given in inputs])
        given = [self._buffers.get(f"constant_{position}", value) for position, value in enumerate(inputs)]
        try:
            return self.operator.function(self.step.attributes, *given)
        except BitatlasError as error:
            raise type(error)(f"{error} ({self.step.where})") from None


def _tensor(value: NDArray[Any]) -> Tensor:
    kept = value.astype(np.float32) if value.dtype.kind == "f" else value
    return torch.from_numpy(np.array(kept))


class _Layer(nn.Module):
    """A convolution or a linear layer."""

    def __init__(self, layer: ImportedLayer) -> None:
        super().__init__()
        assert layer.weight is not None
        self.attributes = layer.step.attributes
        self.weight = nn.Parameter(torch.from_numpy(layer.weight.copy()), requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(torch.from_numpy(layer.bias.copy()), requires_grad=False)
        self.convolution: Callable[..., Tensor] | None = None
        if layer.kind == "convolution":
            axes = self.weight.ndim - 2
            if axes not in _CONVOLUTIONS:
                raise BitatlasError(f"a convolution must have 1 to 3 axes, not {axes} ({layer.step.where})")
            self.convolution = _CONVOLUTIONS[axes]

    def forward(self, x: Tensor) -> Tensor:
        if self.convolution is None:
            return functional.linear(x, self.weight, self.bias)
        kernel = [int(size) for size in self.weight.shape[2:]]
        ends = operators.padding(self.attributes, [int(size) for size in x.shape[2:]], kernel)
        even = all(before == after for before, after in ends)
        return self.convolution(
            x if even else operators.padded(x, ends, 0.0),
            self.weight,
            self.bias,
            stride=list(self.attributes.get("strides", [1] * len(kernel))),
            padding=[before for before, _ in ends] if even else 0,
            dilation=list(self.attributes.get("dilations", [1] * len(kernel))),
            groups=int(self.attributes.get("group", 1)),
        )


class _Product(nn.Module):
    """A product of two computed tensors; a module of its own, so that the layer has its name."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x, y)


def _after_quantized(step: Step, layers: Mapping[str, ImportedLayer]) -> bool:
    layer = layers.get(step.inputs[0])
    return layer is not None and layer.stored is not None


class _Affine(nn.Module):
    """Factor and offset for each channel: a batch norm that is not to be folded into quantized weights."""

    def __init__(self, factor: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("factor", torch.from_numpy(factor))
        self.register_buffer("offset", torch.from_numpy(offset))

    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        return x * self._buffers["factor"].reshape(shape) + self._buffers["offset"].reshape(shape)  # type: ignore[union-attr]


def _normalisation(graph: Graph, step: Step) -> nn.Module:
    names = ("scale", "bias", "mean", "variance")
    found = [graph.constant(step, position, name) for position, name in enumerate(names, start=1)]
    scale, bias, mean, variance = (np.asarray(value, np.float64) for value in found)
    factor = scale / np.sqrt(variance + step.attributes.get("epsilon", 1e-5))
    return _Affine(factor.astype(np.float32), (bias - mean * factor).astype(np.float32))


class _Rounding(nn.Module):
    """A quantizer that stays a part of the network, in torch's own operators."""

    def __init__(self, quantizing: Quantizing) -> None:
        super().__init__()
        fmt, self.scale = quantizing.format, quantizing.scale
        self.ends = (fmt.minimum, fmt.maximum)
        self.whole = fmt.closed_form is not None and fmt.closed_form.kind == "uniform"
        if not self.whole:
            levels = fmt.float32_values[level_codes(fmt)] + np.float32(0)
            self.register_buffer("levels", torch.from_numpy(levels))
            self.register_buffer("thresholds", torch.from_numpy(boundaries(fmt, "nearest_even")))

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return torch.clamp(torch.round(x / self.scale), *self.ends) * self.scale
        levels, thresholds = self._buffers["levels"], self._buffers["thresholds"]
        assert levels is not None
        assert thresholds is not None
        return levels[torch.bucketize((x / self.scale).contiguous(), thresholds, right=True)] * self.scale


class _Cut(nn.Module):
    """What remains of a quantizer that goes into the assignment: a ReLU where it was one too."""

    def __init__(self, cuts: bool) -> None:
        super().__init__()
        self.cuts = cuts

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) if self.cuts else x


def _quantizer(quantizing: Quantizing, kept: bool, cuts: bool) -> nn.Module:
    return _Rounding(quantizing) if kept else _Cut(cuts)
