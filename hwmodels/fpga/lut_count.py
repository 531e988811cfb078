"""LUTs that a function of a few inputs takes, from its truth table."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: inputs of a LUT of a Xilinx 7-series fabric
INPUTS = 6


@lru_cache(maxsize=2048)
def lookup_luts(table: tuple[int | None, ...], outputs: int) -> float:
    """LUTs of a table by code with ``outputs`` bits; None stands where nobody minds. The length must be a power of two."""
    known = np.array([entry is not None for entry in table])
    values = [0 if entry is None else entry for entry in table]
    bits = (np.array([value >> place & 1 for value in values], dtype=np.int8) for place in range(outputs))
    return sum((function_luts(needed_inputs(bit, known)) for bit in bits), 0.0)


def needed_inputs(values: NDArray[np.int8], known: NDArray[np.bool_]) -> int:
    """Return how many inputs matter to a function of one bit, taking out one after the other that does not."""
    needed = 0
    for _ in range(len(values).bit_length() - 1):
        # the lowest input is the last axis: it is taken out, or turned to the front
        pairs, both = values.reshape(-1, 2), known.reshape(-1, 2)
        if (both.all(axis=1) & (pairs[:, 0] != pairs[:, 1])).any():
            needed += 1
            values, known = pairs.T.reshape(-1), both.T.reshape(-1)
        else:
            values, known = np.where(both[:, 0], pairs[:, 0], pairs[:, 1]), both[:, 0] | both[:, 1]
    return needed


def function_luts(inputs: int) -> float:
    """LUTs of a function of ``inputs`` inputs at most: multiplexers of four, a LUT each, over LUTs; one input is a wire.

    With k inputs above six, 2**k LUTs are chosen from: a LUT chooses from four, or from two where k is odd.
    """
    if inputs < 2:
        return 0.0
    above = max(inputs - INPUTS, 0)
    total, leaves = 2.0**above, 2**above
    while leaves > 1:
        leaves = -(-leaves // 4)
        total += leaves
    return total
