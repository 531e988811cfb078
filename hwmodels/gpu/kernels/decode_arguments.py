"""What the kernels that decode codes are compiled with for a format."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwmodels.gpu.kernels.decoding import Carrier, Decoding

#: fields of the float whose bits are built: mantissa bits and bias
_FIELDS: dict[Carrier, tuple[int, int]] = {"float16": (10, 15), "bfloat16": (7, 127), "float32": (23, 127)}


def arguments(found: Decoding, carrier: Carrier) -> dict[str, Any]:
    """Return what ``decode`` is compiled with for values in ``carrier``."""
    return _arguments(found, carrier, carrier if carrier == "float16" and found.in_float16() else "float32")


def paired_arguments(found: Decoding, carrier: Carrier, *, paired: bool = True) -> dict[str, Any]:
    """Return what ``lanes``, ``finish`` and ``decode`` are compiled with.

    ``PAIRED`` says which: codes are decoded two at a time wherever they can be, unless ``paired`` is False.
    """
    if paired and looked_up(found, carrier):
        return _arguments(found, carrier, carrier) | {"PAIRED": True, "KIND": "lookup"}
    if not paired or not found.in_halves(carrier):
        return arguments(found, carrier) | {"PAIRED": False}
    given = _arguments(found, carrier, carrier) | {"PAIRED": True}
    if found.kind == "power":  # a float without mantissa bits, whose exponent field 0 is zero
        given |= {"KIND": "floating", "P0": 0, "P1": -found.first, "P2": -1}
    return given


def factor(given: Mapping[str, Any]) -> float:
    """Return the power of two that values decoded with these arguments must be multiplied by: scales can do that at no cost.

    Signs and ones become twos. float16 has the quotient of the biases of floats so small that sums of products keep all their bits.
    """
    if not given["PAIRED"]:
        return 1.0
    if given["KIND"] == "planes":
        return 0.5
    folded = given["KIND"] == "floating" and given["CARRIER"] == "float16"
    return math.ldexp(1.0, given["BIAS"] - given["P1"]) if folded else 1.0


def packed_tables(terms: NDArray[np.float32], carrier: Carrier) -> int:
    """Return tables of 16 numbers, (terms, 16), as ``lookup_tile`` takes them: a whole number of 256 bits for each term.

    The lower bytes of the numbers in the carrier, 16 bits wide, are the lower half of them.
    """
    kind = torch.float16 if carrier == "float16" else torch.bfloat16
    numbers = torch.from_numpy(terms.copy()).to(kind).view(torch.int16).numpy()
    apart = numbers.astype("<i2").view(np.uint8).reshape(len(terms), -1, 2).transpose(0, 2, 1)
    return int.from_bytes(apart.tobytes(), "little")


def looked_up(found: Decoding, carrier: Carrier) -> bool:
    """Whether codes are looked up in registers: 16 numbers of 16 bits that no other kind has."""
    return found.kind == "table" and found.bits == 4 and carrier != "float32"


def _arguments(found: Decoding, carrier: Carrier, built: Carrier) -> dict[str, Any]:
    mantissa_bits, bias = _FIELDS[built]
    parameters = {"integer": (found.flip, found.offset, -1), "power": (found.first, found.step, found.zero)}
    first, second, third = parameters.get(found.kind, (found.mantissa_bits, found.bias, found.infinity))
    return {
        "KIND": found.kind,
        "BITS": found.bits,
        "CARRIER": carrier,
        "MANTISSA": mantissa_bits,
        "BIAS": bias,
        "P0": first,
        "P1": second,
        "P2": third,
        "SIGNED": found.signed,
    }
