"""Which target writes which operand: the first of those asked for that can."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from dse.assignment import Assignment, LayerAssignment
from dse.export.lowering import Lowering
from dse.network import ROLES, Filling, Fillings, Layer, Network, Role
from dse.ptq.step import PreparedWeight
from dse.quantize import ActivationQuantizer, Preparation, Scratch, StoredWeight
from formats.errors import InvalidValueError
from formats.quantizer import QuantizedTensor, Quantizer
from formats.tensor_quantizer import TensorQuantizer

#: the target of every operand, by layer name and role
Choice = dict[tuple[str, Role], Lowering]


def refuse_early(
    preparation: Preparation, assignment: Assignment, lowerings: Sequence[Lowering], others: Sequence[Lowering] = ()
) -> None:
    """Raise ``ValueError`` for an operand that no target can write, where its quantizer alone tells: before any weight is prepared.

    ``others`` are targets to name in the error where they could.
    """
    for layer in preparation.network.layers:
        for role in ROLES:
            specimen = _specimen(layer, role, assignment.layers[layer.name].quantizer(role))
            if specimen is not None:
                _first(layer, role, specimen, lowerings, others)


def choose(network: Network, fillings: Fillings, lowerings: Sequence[Lowering], others: Sequence[Lowering] = ()) -> Choice:
    """Return the first target that can write each operand. Raises ``ValueError`` as ``refuse_early`` does."""
    return {
        (layer.name, role): _first(layer, role, fillings[layer.name, role], lowerings, others)
        for layer in network.layers
        for role in ROLES
    }


def able(layer: Layer, assignment: LayerAssignment, lowerings: Sequence[Lowering]) -> str:
    """Return the names of the targets that can write both operands of a layer, as far as their quantizers tell; "none" if none."""
    specimens = [_specimen(layer, role, assignment.quantizer(role)) for role in ROLES]
    known = [specimen for specimen in specimens if specimen is not None]
    return ", ".join(each.name for each in lowerings if not any(_refusal(each, specimen) for specimen in known)) or "none"


def written(choice: Mapping[tuple[str, Role], Lowering]) -> dict[str, dict[str, str]]:
    """Return the names of the targets that write a layer's operands, by layer name and role."""
    found: dict[str, dict[str, str]] = {}
    for (layer, role), lowering in choice.items():
        found.setdefault(layer, {})[role] = lowering.name
    return found


def _specimen(layer: Layer, role: Role, quantizer: TensorQuantizer) -> Filling | None:
    """Return a filling of the kind that the quantizer will give; None where that depends on the values."""
    operand = layer.operands.get(role)
    if operand is not None:
        if not isinstance(quantizer, Quantizer):
            return None
        return ActivationQuantizer(format=quantizer.format, scale=1.0, operand=operand, scratch=Scratch())
    assert layer.weight is not None
    given = isinstance(quantizer, Quantizer) and quantizer.choice.name == "at"  # scales of its own for each channel
    encoded = quantizer.encode(layer.weight if given else layer.weight[:1])
    if isinstance(encoded, QuantizedTensor) and encoded.quantizer != quantizer:
        return None  # a method that looks for a format
    return StoredWeight(prepared=PreparedWeight(encoded=encoded), values=torch.from_numpy(encoded.decode()))


def _first(layer: Layer, role: Role, filling: Filling, lowerings: Sequence[Lowering], others: Sequence[Lowering]) -> Lowering:
    refusals = []
    for lowering in lowerings:
        refusal = _refusal(lowering, filling)
        if not refusal:
            return lowering
        refusals.append(refusal)
    able = ", ".join(dict.fromkeys(_able(filling, others))) or "none"
    raise InvalidValueError(f"{role} {', and '.join(refusals)} (layer {layer.name!r}); targets that can: {able}")


def _able(filling: Filling, lowerings: Sequence[Lowering]) -> Iterator[str]:
    return (lowering.name for lowering in lowerings if not _refusal(lowering, filling))


def _refusal(lowering: Lowering, filling: Filling) -> str:
    if isinstance(filling, StoredWeight):
        return lowering.weight_refusal(filling)
    assert isinstance(filling, ActivationQuantizer)
    return lowering.activation_refusal(filling)
