"""Numbers kept to what calibration saw of them, where worst cases would leave no room for what is to be done with them."""

import math

import numpy as np
from torch import fx

from dse.hardware.compiling import Compiler
from dse.hardware.program import Value
from dse.hardware.steps import Clamp

#: numbers are kept to this many times the largest magnitude on the calibration samples
HEADROOM = 4.0


def narrow(made: Compiler, source: fx.Node, bits: int) -> Value:
    """Return a node's numbers in the finest power of two as unit that leaves ``bits`` of magnitude; what is beyond saturates."""
    value = made.value(source)
    largest = max(made.observed[source].largest * HEADROOM, 2.0**-20)
    unit = np.full((1,) * value.unit.ndim, 2.0 ** (math.ceil(math.log2(largest)) - bits))
    rescaled = made.builder.rescale(value, unit)
    limit = np.array(1 << bits)
    return made.builder.emit(Clamp(low=-limit, high=limit), [rescaled], unit, -(1 << bits), 1 << bits)
