"""The assignment that an imported model is quantized by: every format and every scale as its file has them.

Weights get the choice ``at`` with their own scales, so that their codes come back as they are, which is checked. What a model
leaves in float is given float16, which is no more than near, and is said.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dse.assignment import FLOAT32, Assignment, LayerAssignment, parse_quantizer
from dse.imports import own_metadata
from dse.imports.graph import Quantizing, StoredTensor
from dse.imports.layers import ImportedLayer
from dse.imports.model import ImportedModel
from dse.network import Layer, Network, Role
from formats import Quantizer
from formats.errors import BitatlasError
from formats.granularity import TENSOR, Granularity
from formats.scale_storage import ScaleStorage
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import TensorQuantizer

#: what stands in for an operand that the model does not quantize
STAND_IN = "float16"
#: how near a bias' scale must be to the product of the operands' scales, in shares of it
SAME_SCALE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An assignment, and what is to be said of it."""

    assignment: Assignment
    #: one line each
    remarks: tuple[str, ...]
    #: whether every operand has the model's own quantizer
    exact: bool


def assignment(model: ImportedModel, network: Network, name: str, data: str) -> Imported:
    """Return the assignment for the network that was traced from the model's module.

    Raises ``BitatlasError`` where the model quantizes nothing, and where the values of a weight are not those that its quantizer
    gives back.
    """
    if not model.graph.quantizers and not model.graph.stored:
        raise BitatlasError(f"model must have quantizers to be imported, not none; a float network is for dse search: {name}")
    layers: dict[str, LayerAssignment] = {}
    remarks: list[str] = []
    for layer in network.layers:
        imported = model.layers.get(layer.name)
        if imported is None:
            raise BitatlasError(f"layers must be operators of the model, not made in tracing (layer {layer.name!r}): {name}")
        layers[layer.name], said = _layer(model, imported, layer, model.told.get(imported.path))
        remarks += said
    kept = [_kept(model, output) for output in model.operands.kept]
    return Imported(assignment=Assignment(model=name, data=data, layers=layers), remarks=(*kept, *remarks), exact=not remarks)


def _kept(model: ImportedModel, output: str) -> str:
    quantizing, step = model.graph.quantizers[output], model.operands.producers[output]
    what = f"{quantizing.format_name} at {np.float32(quantizing.scale)!s}"
    return f"left in the float network: {what} ({step.where}), which more than layers read"


def _layer(
    model: ImportedModel, imported: ImportedLayer, layer: Layer, told: LayerAssignment | None
) -> tuple[LayerAssignment, list[str]]:
    remarks: list[str] = []

    def activation(position: int, role: Role) -> TensorQuantizer:
        found = model.operands.before(imported.step.inputs[position])
        if found is not None and told is not None:
            found = own_metadata.activation(found, told.quantizer(role), model.operands.after_relu(imported.step.inputs[position]))
        if found is None:
            remarks.append(f"not quantized in the model: {role} of layer {layer.name!r}; {STAND_IN} stands in, and is not exact")
            return parse_quantizer(f"{STAND_IN}:tensor:absmax", role)
        return _given(found)

    activations = activation(0, "activation")
    if layer.weight is None:
        weight: TensorQuantizer = activation(1, "activation")
    elif told is not None and (own := own_metadata.weight(layer.weight, imported.stored, told.weight)) is not None:
        weight = own
    elif imported.stored is None or imported.stored.format_name is None:
        remarks.append(f"not quantized in the model: weight of layer {layer.name!r}; {STAND_IN} stands in, and is not exact")
        weight = parse_quantizer(f"{STAND_IN}:channel:absmax", "weight")
    else:
        weight = _weight(imported.stored, layer)
    accumulator = "exact" if _on_products_grid(imported, activations, weight) else FLOAT32
    if told is not None:
        accumulator = told.accumulator
    return LayerAssignment(weight=weight, activation=activations, accumulator=accumulator), remarks


def _given(found: Quantizing) -> Quantizer:
    return Quantizer(
        format_name=found.format_name,
        granularity=TENSOR,
        choice=ScaleChoice.at([found.scale]),
        storage=_storage(np.array([found.scale], np.float32)),
    )


def _storage(scales: NDArray[np.float32]) -> ScaleStorage:
    """Return powers of two where all scales are that."""
    power = ScaleStorage.parse("power_of_two")
    return power if (power.store(scales).decode() == scales).all() else ScaleStorage()


def _weight(stored: StoredTensor, layer: Layer) -> Quantizer:
    """Return the quantizer that gives a stored weight back as it is."""
    assert stored.format_name is not None
    if layer.weight is None or not np.array_equal(layer.weight, stored.values):
        raise BitatlasError(f"a quantized weight must stay as it is in the float network, not change (layer {layer.name!r})")
    granularity, scales = _shared(stored.scales, layer.name)
    quantizer = Quantizer(
        format_name=stored.format_name, granularity=granularity, choice=ScaleChoice.at(scales), storage=_storage(scales)
    )
    if not np.array_equal(quantizer.encode(stored.values).decode(), stored.values):
        raise BitatlasError(f"codes of a weight must come back from their values, not change (layer {layer.name!r})")
    return quantizer


def _shared(scales: NDArray[np.float32], layer: str) -> tuple[Granularity, NDArray[np.float32]]:
    """Return which values share a scale, as coarsely as can be, and the scales."""
    if (scales == scales.flat[0]).all():
        return TENSOR, scales.reshape(-1)[:1]
    flat = scales.reshape(len(scales), -1)
    if (flat == flat[:, :1]).all():
        return Granularity(name="channel"), np.ascontiguousarray(flat[:, 0])
    changes = np.flatnonzero((flat[:, 1:] != flat[:, :-1]).any(axis=0)) + 1
    granularity = Granularity(name="group", size=int(np.gcd.reduce(changes)))
    rows = granularity.to_rows(scales)
    groups = rows[:, 0]
    if granularity.size == 1:
        raise BitatlasError(
            f"scales of a weight must be shared by neighbours within a channel, not change at each (layer {layer!r})"
        )
    return granularity, np.ascontiguousarray(groups)


def _on_products_grid(imported: ImportedLayer, activation: TensorQuantizer, weight: TensorQuantizer) -> bool:
    """Whether the bias is stored in whole multiples of the product of the operands' scales, as sums of codes are."""
    bias = imported.stored_bias
    if bias is None or imported.stored is None or (bias.format_name is not None and not bias.format_name.startswith("int")):
        return False
    if not isinstance(activation, Quantizer) or not isinstance(weight, Quantizer) or not activation.choice.given:
        return False
    if weight.granularity.name not in ("tensor", "channel") or not weight.choice.given:
        return False
    wanted = activation.choice.given[0] * np.array(weight.choice.given, np.float64)
    return bool(np.allclose(bias.scales, wanted, rtol=SAME_SCALE, atol=0))
