"""What the multiply-accumulate units of a whole network cost at equal throughput."""

from collections.abc import Sequence
from typing import NamedTuple

from hwmodels.cost import LayerPlan
from hwmodels.fpga.mac_model import unit_price
from hwmodels.fpga.synthesis.table import MANY_LANES

#: clock cycles for a sample: 10,000 samples a second at 100 MHz
CYCLES = 10_000


class Units(NamedTuple):
    """LUTs of all units, and the share of them that is predicted by the fitted model and not from the table."""

    lut: float
    predicted: float


def mac_units(plans: Sequence[LayerPlan], cycles: int = CYCLES) -> Units:
    """Return the LUTs of a network's units that finish a sample every ``cycles`` clock cycles.

    Every layer has as many multiply-accumulates at work as finish its share in time, a fraction of a unit where that is what it
    takes: networks are compared by their arithmetic alone, not by how it divides. Units have the lanes of the table's larger
    ones, fewer for shorter dot products, no DSP slices, and accumulators exact for the layer's dot length. Requantizers, memories
    and control are left out, as in the paper. ``NotPricedError`` for a format without a price.
    """
    total, predicted = 0.0, 0.0
    for plan in plans:
        workload = plan.workload
        lanes = min(MANY_LANES, workload.dot_length)
        unit = unit_price(plan.weight.format, plan.activation.format, lanes=lanes, dot_length=workload.dot_length, dsp=False)
        lut = unit.lut * workload.macs / cycles / lanes
        total += lut
        predicted += lut * (unit.origin == "predicted")
    return Units(total, predicted / total)
