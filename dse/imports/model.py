"""An imported model: the torch module, and what its file says of quantizers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dse.assignment import LayerAssignment
from dse.imports import graph as graphs
from dse.imports import layers as found_layers
from dse.imports import onnx_file, own_functions, own_groups, own_metadata, qdq, qonnx
from dse.imports.graph import Graph
from dse.imports.layers import ImportedLayer
from dse.imports.module import ImportedNetwork
from dse.imports.operands import Operands
from formats.errors import BitatlasError, InvalidValueError


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportedModel:
    """A float network, with the quantizers that were taken out of it."""

    module: ImportedNetwork
    graph: Graph
    #: by name in a traced network
    layers: Mapping[str, ImportedLayer]
    operands: Operands
    #: assignments that the file itself tells of, by path
    told: Mapping[str, LayerAssignment]


def read(path: Path) -> ImportedModel:
    """Read a model from a file; errors name it, and the node where it is one's."""
    model = onnx_file.read(path)
    try:
        told = own_metadata.said({entry.key: entry.value for entry in model.metadata_props})
        model, own = own_functions.inlined(own_groups.put_together(model, told) if told else model)
        graph = graphs.read(model, {**qdq.HANDLERS, **qonnx.HANDLERS, **own, own_groups.OPERATOR: own_groups.read})
        by_output = found_layers.find(graph)
        operands = Operands(graph, by_output)
        module = ImportedNetwork(graph, by_output, operands)
    except BitatlasError as error:
        raise type(error)(f"{error}: {path}") from None
    except KeyError as error:
        what = "name values that its nodes make before they are read, and give every attribute that is needed"
        raise InvalidValueError(f"model must {what}, not lack {error}: {path}") from None
    return ImportedModel(
        module=module, graph=graph, layers={layer.name: layer for layer in by_output.values()}, operands=operands, told=told
    )
