"""The float network as ONNX with a marker where every quantized operand passes: what all export targets start from."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor

from dse.network import ROLES, Filling, Fillings, Network, Place, Role
from formats.errors import BitatlasError

DOMAIN = "bitatlas.slots"
OPERATOR = "Slot"
OPSET = 21  # the first with 4-bit and 16-bit integers in QuantizeLinear


class _Marker:
    """A filling that leaves a named operator in the exported graph."""

    def __init__(self, layer: str, role: Role) -> None:
        self.attributes = {"layer": layer, "role": role}

    def __call__(self, operand: Tensor) -> Tensor:
        marked: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OPERATOR}", (operand,), dict(self.attributes), dtype=operand.dtype, shape=operand.shape, version=1
        )
        return marked


def export(
    network: Network, sample_shape: tuple[int, ...], fillings: Fillings | None = None, opset: int = OPSET
) -> onnx.ModelProto:
    """Export the network for any batch size, with input ``images``, output ``logits`` and one ``Slot`` node for each operand.

    A ``Slot`` has the attributes ``layer`` and ``role``; its input is the float operand, for stored weights an initializer.
    What ``fillings`` do to biases is part of the network. ``opset`` is the version of ONNX' operators.
    """
    markers: dict[tuple[str, Place], Filling] = {
        (layer.name, role): _Marker(layer.name, role) for layer in network.layers for role in ROLES
    }
    biases = {key: filling for key, filling in (fillings or {}).items() if key[1] == "bias"}
    try:
        with network.filled(markers | biases), _quiet():
            program = torch.onnx.export(
                network.graph_module,
                (torch.zeros(2, *sample_shape),),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["images"],
                output_names=["logits"],
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first_line = str(error).strip().split("\n")[0][:300]
        raise BitatlasError(f"model must be exportable to ONNX, not fail: {first_line}") from error
    assert program is not None
    model = program.model_proto
    found = next(imported.version for imported in model.opset_import if not imported.domain)
    if found != opset:  # the exporter goes on where it cannot convert its operators
        raise BitatlasError(f"operators of the model must exist in version {opset} of ONNX' set, not in {found} alone")
    _strip_traces(model)
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress report and its warnings about packages that no model here needs to itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes on Python sources: they hold paths of the machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        node.ClearField("metadata_props")
    del graph.value_info[:]
