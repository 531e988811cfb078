"""What a model exported by this project says of itself: the assignment that it was made of.

An export may keep a format's values in another type, up to a power of two on the scale: ``e2m1`` in half units as INT8. The
assignment in its properties tells which format it was; it is heeded where, and only where, that gives the same values.
"""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dse.assignment import LayerAssignment, parse_quantizer
from dse.imports.graph import Quantizing, StoredTensor
from dse.network import ROLES
from formats import Format, Quantizer
from formats.boundaries import boundaries, level_codes
from formats.errors import BitatlasError
from formats.registry import scalar
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import TensorQuantizer

PROPERTY, NAMES = "bitatlas.assignment", "bitatlas.names"
#: powers of two that a scale may have been multiplied by, the likeliest first
EXPONENTS = (0, *(sign * exponent for exponent in range(1, 33) for sign in (1, -1)))


def said(metadata: Mapping[str, str]) -> dict[str, LayerAssignment]:
    """Return the assignments of layers that the properties of a model tell, by the layers' names in its graph."""
    if PROPERTY not in metadata:
        return {}
    found: dict[str, LayerAssignment] = {}
    try:
        names = json.loads(metadata.get(NAMES, "{}"))
        for name, given in json.loads(metadata[PROPERTY])["layers"].items():
            weight, activation = (parse_quantizer(given[role], role) for role in ROLES)
            found[names.get(name, name)] = LayerAssignment(weight=weight, activation=activation, accumulator=given["accumulator"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        cause = str(error).splitlines()[0][:200]
        raise BitatlasError(f"{PROPERTY} of an ONNX model must be an assignment, not broken ({cause})") from None
    return found


def weight(values: NDArray[np.float32], stored: StoredTensor | None, told: TensorQuantizer) -> TensorQuantizer | None:
    """Return the quantizer told of where it gives ``values`` back as they are, with their own scales where it has a choice."""
    if not isinstance(told, Quantizer):
        return told if np.array_equal(told.encode(values).decode(), values) else None
    if stored is None:
        return None
    rows = told.granularity.to_rows(stored.scales)
    scales = rows.max(axis=1)  # beyond the edge, rows are filled up with zeros
    if ((rows != scales[:, np.newaxis]) & (rows != 0)).any():
        return None
    for exponent in EXPONENTS:
        moved = np.ldexp(scales, exponent).astype(np.float32)
        try:
            quantizer = replace(told, choice=ScaleChoice.at(moved))
            if np.array_equal(quantizer.encode(values).decode(), values):
                return quantizer
        except BitatlasError:  # the storage does not hold these scales
            continue
    return None


def activation(found: Quantizing, told: TensorQuantizer, after_relu: bool) -> Quantizing:
    """Return a quantizer under the name told of where it has the same levels and boundaries, else as it is.

    After a ReLU only those above zero count.
    """
    if not isinstance(told, Quantizer) or told.format_name == found.format_name:
        return found
    own, wanted = found.format, scalar(told.format_name)
    scale = float(own.largest) / float(wanted.largest) * found.scale if wanted.largest > 0 else 0.0
    if scale <= 0 or np.frexp(scale / found.scale)[0] != 0.5:
        return found
    positive = after_relu and wanted.minimum >= 0
    same = all(
        np.array_equal(_part(edges(own) * found.scale, positive), _part(edges(wanted) * scale, positive))
        for edges in (_levels, _edges)
    )
    return Quantizing(format_name=told.format_name, scale=scale) if same else found


def _levels(fmt: Format) -> NDArray[np.float64]:
    return fmt.values[level_codes(fmt)]


def _edges(fmt: Format) -> NDArray[np.float64]:
    return boundaries(fmt, "nearest_even").astype(np.float64)


def _part(numbers: NDArray[np.float64], positive: bool) -> NDArray[np.float64]:
    return numbers[numbers > 0] if positive else numbers
