"""LUTs of a layer by FINN's published formula for integers, and an extension of it to other formats.

FINN-R estimates a matrix-vector unit of P outputs and Q lanes (Blott et al., ACM TRETS 11(3), 2018; the constants are those of
``MVAU_hls.lut_estimation`` in Xilinx/finn) as

    LUT = 300 + 1.1 * P * (Q * mult + addtree + acc)      mult = (2 * ceil((W + A) / 6) - 1) * (W + A)
                                                          addtree = (W + A) * (2 * Q - 1)

for W-bit weights and A-bit activations. Its terms for thresholds and for weights in LUT memory are left out here: they belong
to the output's format and to the choice of memory, not to the multiply-accumulate.

**The extension is this project's own and not calibrated**: it is there so that formats can be compared at all until figures
from synthesis take its place. A format that is not an integer counts as sign, significand and exponent. Significands multiply
by the same formula; exponents are added; the product is shifted to its place in an exact fixed-point sum (one LUT for two
levels of a barrel shifter and bit) and negated where the signs differ; the adder tree and the accumulator are as wide as that
sum. Powers of the square root of two need both twice, for even and odd powers.
"""

import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from formats import Format, scalar
from formats.boundaries import level_codes
from formats.errors import InvalidValueError
from hwmodels.cost import CostModel, LayerPlan, Metric, per_layer, require_codes_alone
from hwmodels.workload import LayerWorkload

LUT_PER_LAYER = 300
OVERHEAD = 1.1
LANES = 8
CYCLES = 1024


@dataclass(frozen=True, kw_only=True)
class Operand:
    """What the shape of a format's values asks of a multiplier."""

    #: width that enters FINN's multiplier formula: a whole integer, or a significand without sign; 1 needs no multiplier
    multiplier_bits: int
    #: different exponents that a product can be shifted by; 1 for integers
    places: int
    #: magnitude bits of the value as a whole number of the format's smallest step
    fixed_point_bits: int
    signed: bool
    integer: bool
    #: whether half octaves occur
    root: bool


@cache
def operand(format_name: str) -> Operand:
    """Derive the operand's shape from the format's exact values."""
    fmt = scalar(format_name)
    used = level_codes(fmt)
    used = used[fmt.significand[used] != 0]
    significands, exponents = np.abs(fmt.significand[used]), fmt.exponent[used]
    integer = len(np.unique(exponents)) == 1 and not fmt.root.any()
    lowest = int(exponents.min())
    widths = [int(s).bit_length() + int(e) - lowest for s, e in zip(significands, exponents, strict=True)]
    return Operand(
        multiplier_bits=fmt.bits if integer else int(significands.max()).bit_length(),
        places=len(np.unique(exponents)),
        fixed_point_bits=max(widths),
        signed=fmt.signed,
        integer=integer,
        root=bool(fmt.root.any()),
    )


def multiplier(bits: int) -> int:
    """LUTs of a multiplier whose operands' widths sum to ``bits`` (FINN)."""
    return (2 * math.ceil(bits / 6) - 1) * bits


def accumulator_bits(weight: Format, activation: Format, dot_length: int) -> int:
    """Width of an integer accumulator by data-type bound, as FINN takes it (A2Q, arXiv 2301.13376, eq. 8)."""
    alpha = math.log2(dot_length) + weight.bits + activation.bits - 1 - (1 if activation.signed else 0)
    return math.ceil(alpha + math.log2(1 + 2.0**-alpha) + 1)


def lut_per_mac(weight: Format, activation: Format, dot_length: int, lanes: int = LANES) -> float:
    """LUTs of one multiply-accumulate lane of a unit that has ``lanes`` of them and one accumulator."""
    w, a = operand(weight.name), operand(activation.name)
    if w.integer and a.integer:
        width = weight.bits + activation.bits
        lane = float(multiplier(width))
        accumulator = accumulator_bits(weight, activation, dot_length)
        sums = 1
    else:
        width = w.fixed_point_bits + a.fixed_point_bits + (w.signed or a.signed)
        lane = _general_lane(w, a, width)
        accumulator = width + math.ceil(math.log2(dot_length))
        sums = 2 if w.root or a.root else 1
    return OVERHEAD * (lanes * lane + sums * (width * (2 * lanes - 1) + accumulator)) / lanes


def _general_lane(w: Operand, a: Operand, width: int) -> float:
    """LUTs of multiplying and placing one product of ``width`` bits: the extension."""
    both = min(w.multiplier_bits, a.multiplier_bits) > 1
    multiply = multiplier(w.multiplier_bits + a.multiplier_bits) if both else 0
    places = w.places + a.places - 1
    levels = math.ceil(math.log2(places)) if places > 1 else 0
    exponent_sum = math.ceil(math.log2(w.places + a.places)) if min(w.places, a.places) > 1 else 0
    negate = width if w.signed or a.signed else 0
    return multiply + exponent_sum + width * levels / 2 + negate


def units(workload: LayerWorkload, cycles: int, lanes: int) -> int:
    """Return how many units of ``lanes`` lanes finish the layer's MACs for one sample within ``cycles``."""
    return max(1, math.ceil(workload.macs / (cycles * lanes)))


def _figures(plan: LayerPlan, cycles: int, lanes: int) -> dict[str, float]:
    require_codes_alone(plan)
    each = lut_per_mac(plan.weight.format, plan.activation.format, plan.workload.dot_length, lanes)
    return {"lut": LUT_PER_LAYER + each * lanes * units(plan.workload, cycles, lanes), "lut_per_mac": each}


def finn_formula(cycles: int = CYCLES, lanes: int = LANES) -> CostModel:
    """Return the model for a pipeline in which every layer takes at most ``cycles`` clock cycles for a sample."""
    if cycles < 1 or lanes < 1:
        raise InvalidValueError(f"cycles and lanes must be at least 1, not {cycles} and {lanes}")
    return CostModel(
        name="finn-formula",
        metrics=(
            Metric(
                name="lut",
                unit="LUT",
                summary=f"FINN's formula, extended beyond integers; {cycles} cycles for a sample, {lanes} lanes",
            ),
            Metric(name="lut_per_mac", unit="LUT/MAC", summary="the same for one lane", total="none"),
        ),
        figures=per_layer(partial(_figures, cycles=cycles, lanes=lanes)),
    )
