"""Prices of units by formulas: nothing here was synthesised, and nothing was fitted to what was.

``unit_price`` is FINN's published formula with this project's extension beyond integers (``hwmodels/finn_formula.py``).
``requantizer_price`` counts what a requantizer must hold at least: comparators of one LUT for two bits (two LUT5 and the carry
chain of a slice compare two bits of two words), registers at its stages, and tables for formats whose codes are not in order.
"""

import math
from functools import cache

from formats.boundaries import level_codes
from formats.format import Format
from hwmodels.cost import NotPricedError
from hwmodels.finn_formula import lut_per_mac, multiplier, operand
from hwmodels.fpga.unit_cost import RequantizerKind, UnitCost

#: bits of the factor that a multiplying requantizer has for each channel, and of the place that it shifts to
FACTOR_BITS, SHIFT_BITS = 31, 5
#: operands of one multiplier of a DSP slice, sign included (UG479, UG579)
DSP_WIDE, DSP_NARROW = 25, 18


def unit_price(weight: Format, activation: Format, *, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
    """Price a unit by FINN's formula; a ``UnitPrice``.

    With ``dsp`` whole numbers are multiplied by a DSP slice each (FINN: ``ceil((W + A) / 48)``); other formats have no use for it.
    """
    w, a = operand(weight.name), operand(activation.name)
    each = lut_per_mac(weight, activation, dot_length, lanes)
    slices = 0.0
    if dsp and w.integer and a.integer:
        each -= 1.1 * multiplier(weight.bits + activation.bits)
        slices = float(lanes * math.ceil((weight.bits + activation.bits) / 48))
    width = w.fixed_point_bits + a.fixed_point_bits + math.ceil(math.log2(max(dot_length, 2)))
    return UnitCost(
        lut=each * lanes, carry4=0.0, flip_flops=float(width), dsp=slices, arrival_ps=0.0, origin="formula", recipe="finn-formula"
    )


@cache
def levels(output: Format) -> int:
    """Different values that a code of the format can stand for."""
    return len(level_codes(output))


@cache
def in_order(output: Format) -> bool:
    """Whether codes count the levels up, from the lowest or around zero, so that a level's number needs no table."""
    codes = level_codes(output)
    return bool(((codes[1:] - codes[:-1]) % 2**output.bits == 1).all())


def requantizer_price(accumulator_bits: int, output: Format, *, kind: RequantizerKind, dsp: bool) -> UnitCost:
    """Price a lane of a requantizer; a ``RequantizerPrice``.

    ``thresholds`` compares with all levels but one and adds up what is exceeded, in a tree of a LUT a comparison. ``search`` has
    one comparison and one register for each bit of the level's number. ``multiplier`` leads to whole numbers only.
    """
    comparison = math.ceil(accumulator_bits / 2)
    stages = math.ceil(math.log2(levels(output)))
    table = 0 if in_order(output) else output.bits * math.ceil(2**stages / 64)
    slices = 0
    if kind == "thresholds":
        lut, flip_flops = (levels(output) - 1) * (comparison + 1) + table, output.bits
    elif kind == "search":
        lut, flip_flops = stages * comparison + table, stages * (accumulator_bits + 1)
    else:
        if not operand(output.name).integer:
            raise NotPricedError(f"output of a multiplying requantizer must be a whole number, not {output.name}")
        product = accumulator_bits + FACTOR_BITS
        slices = math.ceil(accumulator_bits / DSP_WIDE) * math.ceil((FACTOR_BITS + 1) / DSP_NARROW) if dsp else 0
        lut = (0 if dsp else multiplier(product)) + product * math.ceil(SHIFT_BITS / 2) + 2 * output.bits
        flip_flops = product + output.bits
    return UnitCost(
        lut=float(lut),
        carry4=0.0,
        flip_flops=float(flip_flops),
        dsp=float(slices),
        arrival_ps=0.0,
        origin="formula",
        recipe=kind,
    )
