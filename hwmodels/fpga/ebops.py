"""Effective bit operations: a proxy of a multiplier's cost, here for comparison.

EBOPs of a layer are the sum, over its multiplications, of the product of both operands' widths in bits (HGQ, arXiv 2405.00645,
which trains networks by it and finds LUT + 55 * DSP of designs by hls4ml to follow it; HGQ2's documentation says the same). The
widths are those of fixed-point numbers. For other formats this project takes what a fixed-point multiplier would have to hold: the
width of every value as a whole number of the format's smallest step, with its sign.
"""

from formats.format import Format
from hwmodels.finn_formula import operand

#: LUTs that a DSP slice stands for
LUT_PER_DSP = 55


def fixed_point_bits(fmt: Format) -> int:
    """Width of the format's values as fixed-point numbers: that of the code where it is an integer."""
    shape = operand(fmt.name)
    return fmt.bits if shape.integer else shape.fixed_point_bits + shape.signed


def ebops_per_mac(weight: Format, activation: Format) -> int:
    """EBOPs of one multiplication."""
    return fixed_point_bits(weight) * fixed_point_bits(activation)
