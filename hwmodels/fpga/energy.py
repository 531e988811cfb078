"""Energy of a layer for one sample: a model that ranks formats and foldings, in units of a 45 nm process.

Operations cost what M. Horowitz, "Computing's Energy Problem (and what we can do about it)", ISSCC 2014, pages 10 to 14, figure
1.1.9 says of an 8-bit integer at 0.9 V: 0.03 pJ for an addition, 0.2 pJ for a multiplication; and 10 pJ to read 64 bits from a
memory of 8 KB. From these the model goes on, by rules of this project: an addition grows with its width, a multiplication with
the product of its operands' widths (32 bits come out as 0.12 and 3.2 pJ; the paper says 0.1 and 3.1), a read with its bits. A
product is multiplied at its operands' significands, its exponents are added, and moving it to its place in a sum costs, for each
bit and level of the shifter, half of what adding that bit does. Requantizing is not counted. Nothing here knows an FPGA's wires
or its leakage: compare the figures with each other, not with a power meter.
"""

import math

from formats.format import Format
from hwmodels.cost import LayerPlan
from hwmodels.finn_formula import operand
from hwmodels.fpga.folding import Folding, matrix_shape

#: pJ for one bit of an addition, for the product of one bit by one, and for one bit read
ADD, MULTIPLY, READ = 0.03 / 8, 0.2 / 64, 10 / 64
#: share of an addition that one level of a shifter is taken to cost
SHIFT = 0.5


def mac_pj(weight: Format, activation: Format, accumulator_bits: int) -> float:
    """Energy of one multiplication and of adding its product to an accumulator of ``accumulator_bits``, in pJ."""
    w, a = operand(weight.name), operand(activation.name)
    energy = ADD * accumulator_bits * (2 if w.root or a.root else 1)
    if min(w.multiplier_bits, a.multiplier_bits) > 1:
        energy += MULTIPLY * w.multiplier_bits * a.multiplier_bits
    places = w.places + a.places - 1
    if places > 1:
        width = w.fixed_point_bits + a.fixed_point_bits
        energy += SHIFT * ADD * width * math.ceil(math.log2(places))
    if min(w.places, a.places) > 1:
        energy += ADD * math.ceil(math.log2(places))
    return energy


def layer_pj(plan: LayerPlan, folding: Folding, accumulator_bits: int) -> float:
    """Energy of a layer for one sample, in pJ.

    Every multiply-accumulate reads its weight; an activation is read once for all the PEs that work on it at a time; the codes of
    the result are written once.
    """
    workload, weight, activation = plan.workload, plan.weight.format, plan.activation.format
    arithmetic = workload.macs * mac_pj(weight, activation, accumulator_bits)
    passes = matrix_shape(workload).rows // folding.pe
    inputs = workload.macs // matrix_shape(workload).rows * passes
    if workload.convolution is not None and workload.convolution.depthwise:
        inputs = workload.macs  # every PE works on a channel of its own
    written = sum(output.format.bits for output in plan.outputs) or accumulator_bits
    read = workload.macs * weight.bits + inputs * activation.bits + workload.activations_out * written
    return arithmetic + READ * read
