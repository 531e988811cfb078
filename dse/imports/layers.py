"""Layers of an imported graph: their names, weights with output channels first, biases, and what is done right after them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dse.imports import own_metadata
from dse.imports.graph import Graph, Step, StoredTensor
from formats.errors import BitatlasError

Kind = Literal["convolution", "linear", "product"]
#: attributes of a Gemm that is a linear layer
_GEMM = {"alpha": 1.0, "beta": 1.0, "transA": 0}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedLayer:
    """A convolution, a linear layer or a product of two computed tensors."""

    #: path of its torch module
    path: str
    kind: Kind
    step: Step
    #: float32 values, output channels first; None for a product
    weight: NDArray[np.float32] | None = None
    #: the same with its scales, where the model stores it quantized
    stored: StoredTensor | None = None
    bias: NDArray[np.float32] | None = None
    stored_bias: StoredTensor | None = None

    @property
    def name(self) -> str:
        """The layer's name in a ``dse.network.Network``."""
        return f"{self.path}.product" if self.kind == "product" else self.path


def find(graph: Graph) -> dict[str, ImportedLayer]:
    """Return the layers by the name of their output; additions of a bias become part of the layer before."""
    found: dict[str, ImportedLayer] = {}
    taken: set[str] = set()
    readers = read_by(graph)
    for step in graph.steps:
        if step.domain or step.operator not in ("Conv", "Gemm", "MatMul"):
            continue
        constant = [name in graph.constants for name in step.inputs]
        if constant[0] or (step.operator != "MatMul" and not all(constant[1:])):
            needs = "computed activations, and stored weights and biases"
            raise BitatlasError(f"{step.operator} must take {needs}, not otherwise ({step.where})")
        if step.operator == "MatMul" and constant[1] and graph.constants[step.inputs[1]].ndim != 2:
            axes = graph.constants[step.inputs[1]].ndim
            raise BitatlasError(f"a stored factor of MatMul must have two axes, not {axes} ({step.where})")
        path = _unique(_path(graph, step), taken)
        layer = ImportedLayer(path=path, kind="product", step=step) if not constant[1] else _with_weight(graph, step, path)
        if layer.kind == "linear" and layer.bias is None:
            layer = _with_addition(graph, layer, readers)
        found[step.outputs[0]] = layer
    return found


def read_by(graph: Graph) -> Mapping[str, list[Step]]:
    """Return the steps that read each tensor."""
    readers: dict[str, list[Step]] = {}
    for step in graph.steps:
        for name in step.inputs:
            readers.setdefault(name, []).append(step)
    return readers


def _path(graph: Graph, step: Step) -> str:
    """Name a layer by its stored weight where that is called so, or by its quantizer in this project's own exports, or its node."""
    named = None
    if step.inputs[1] in graph.constants or own_metadata.PROPERTY in graph.metadata:
        found = (re.fullmatch(r"(.+)[./]weight(_quantized|/[a-z_]+)?", name) for name in graph.origin(step.inputs[1]))
        named = next((match for match in found if match), None)
    text = named[1] if named else re.sub(rf"/?(node_)?{step.operator}(_[0-9]+)?$", "", step.name) or step.name
    parts = [re.sub(r"[^A-Za-z0-9_]", "_", part) for part in re.split(r"[./:]+", text) if part]
    return ".".join(parts) or step.operator.lower()


def _unique(path: str, taken: set[str]) -> str:
    chosen, number = path, 2
    while chosen in taken:
        chosen, number = f"{path}_{number}", number + 1
    taken.add(chosen)
    return chosen


def _with_weight(graph: Graph, step: Step, path: str) -> ImportedLayer:
    values, stored = graph.constants[step.inputs[1]], graph.stored.get(step.inputs[1])
    # output channels come first: rows of a convolution's and a transposed matrix, columns of a matrix as it is
    turned = step.operator == "MatMul" or (step.operator == "Gemm" and not step.attributes.get("transB"))
    if turned:
        values = np.ascontiguousarray(values.T)
        stored = stored and replace(stored, values=values, scales=np.ascontiguousarray(stored.scales.T))
    if step.operator == "Gemm":
        given = {name: step.attributes.get(name, usual) for name, usual in _GEMM.items()}
        if given != _GEMM:
            found = ", ".join(f"{name} {value:g}" for name, value in given.items())
            raise BitatlasError(
                f"Gemm must multiply by its second factor alone, alpha 1, beta 1, transA 0, not {found} ({step.where})"
            )
    layer = ImportedLayer(
        path=path,
        kind="convolution" if step.operator == "Conv" else "linear",
        step=step,
        weight=values.astype(np.float32),
        stored=stored,
    )
    return _with_bias(graph, layer, step.inputs[2]) if len(step.inputs) > 2 and step.inputs[2] else layer


def _with_bias(graph: Graph, layer: ImportedLayer, name: str) -> ImportedLayer:
    assert layer.weight is not None
    channels = len(layer.weight)
    values, stored = graph.constants[name].astype(np.float32), graph.stored.get(name)
    if values.size not in (1, channels):
        raise BitatlasError(f"a bias must have a value for each of {channels} channels, not {values.size} ({layer.step.where})")
    spread = np.ascontiguousarray(np.broadcast_to(values.reshape(-1), channels))
    if stored is not None:
        stored = replace(stored, values=spread, scales=np.broadcast_to(stored.scales.reshape(-1), channels))
    return replace(layer, bias=spread, stored_bias=stored)


def _with_addition(graph: Graph, layer: ImportedLayer, readers: Mapping[str, list[Step]]) -> ImportedLayer:
    """Make an addition of constants, one for each channel, right after a linear layer its bias."""
    assert layer.weight is not None
    following = readers.get(layer.step.outputs[0], [])
    if len(following) != 1 or following[0].operator != "Add" or layer.step.outputs[0] == graph.output:
        return layer
    step = following[0]
    other = next((name for name in step.inputs if name != layer.step.outputs[0]), "")
    if other not in graph.constants or graph.constants[other].shape[-1:] != (len(layer.weight),):
        return layer
    if graph.constants[other].size != len(layer.weight):
        return layer
    graph.steps[graph.steps.index(step)] = replace(step, operator="Identity", inputs=layer.step.outputs)
    return _with_bias(graph, layer, other)
