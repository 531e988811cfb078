"""The weights of a layer as constant matrices of whole numbers, and the intervals of what they are multiplied with.

Any format of fixed-point numbers will do: codes stand for whole numbers of a power of two, and powers of two are wires. Values in
Z[sqrt(2)] are two whole numbers, even and odd. With x = xe + xo sqrt(2) and W = We + Wo sqrt(2)

    [ye yo] = [xe xo] [[We, Wo], [2 Wo, We]]

is one constant matrix, in which even and odd outputs may share adders; without xo where activations have no root.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic.products import operand
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.fpga.adder_graph import BLOCK_COLUMNS, BLOCK_ROWS, WEIGHT_BITS, AdderGraph, Interval, adder_graph
from hwmodels.fpga.memory import rom_luts
from hwmodels.workload import LayerWorkload


@dataclass(frozen=True, kw_only=True)
class WholeNumbers:
    """What the codes of a format that may occur stand for: ``number * 2**exponent``, times the square root of two where odd."""

    #: int64 of shape (codes,); zero for codes that are odd
    even: NDArray[np.int64]
    #: the same the other way round; None where no code has the root
    odd: NDArray[np.int64] | None
    #: relative to the format's LSB
    exponent: int


def whole_numbers(side: str, fmt: Format, codes: NDArray[Any]) -> WholeNumbers:
    """Return what the codes that occur in ``codes`` stand for; ``ValueError`` for NaN, Inf and more than 31 bits of magnitude."""
    found = operand(side, fmt, np.ascontiguousarray(codes, fmt.code_dtype), specials=False)
    parts = [found.part(root=root) for root in (False, True)]
    shifts = [part.least_shift for part in parts if not part.empty]
    exponent = min(shifts, default=0)
    lowered = [part if part.empty else part.lowered(exponent) for part in parts]
    largest = max(part.largest for part in lowered)
    if largest.bit_length() > WEIGHT_BITS:
        limit = f"below 2**{WEIGHT_BITS} of their smallest step"
        raise InvalidValueError(f"{side} must be {limit} to be unrolled, not {largest} of it ({fmt.name})")
    even, odd = (part.table(np.int64)[:-1] for part in lowered)
    return WholeNumbers(even=even, odd=None if parts[1].empty else odd, exponent=exponent)


def matrices(workload: LayerWorkload, fmt: Format, codes: NDArray[Any]) -> list[tuple[NDArray[np.int64], NDArray[np.int64] | None]]:
    """Return the constant matrix (dot length, outputs) of every group, even and odd, from codes of shape (output channels, …)."""
    if workload.weights == 0:
        raise InvalidValueError("weights must be stored to be unrolled, not computed")
    expected = (workload.output_channels, workload.dot_length)
    if codes.size != workload.weights or len(codes) != workload.output_channels:
        raise InvalidValueError(f"weight codes must be {expected[0]} x {expected[1]}, not of the shape {codes.shape}")
    numbers = whole_numbers("weights", fmt, codes)
    groups = 1 if workload.convolution is None else workload.convolution.groups
    cut = codes.reshape(groups, -1, workload.dot_length)
    return [(numbers.even[group].T, None if numbers.odd is None else numbers.odd[group].T) for group in cut]


def inputs(fmt: Format) -> tuple[Interval, Interval | None]:
    """Return the intervals of an activation's even and odd part, in LSBs of the format."""
    usable = np.flatnonzero(np.isfinite(fmt.values)).astype(fmt.code_dtype)
    numbers = whole_numbers("activations", fmt, usable)
    even, odd = (None if table is None else table[usable] for table in (numbers.even, numbers.odd))
    assert even is not None
    return _interval(even), None if odd is None else _interval(odd)


def _interval(values: NDArray[np.int64]) -> Interval:
    step = int(np.gcd.reduce(values))
    return Interval(int(values.min()), int(values.max()), step & -step or 1)


def embedded(
    even: NDArray[np.int64], odd: NDArray[np.int64] | None, activation: tuple[Interval, Interval | None]
) -> tuple[NDArray[np.int64], list[Interval]]:
    """Return the matrix over whole numbers of a product in Z[sqrt(2)] and the intervals of its inputs (see the module)."""
    rooted = activation[1]
    if odd is None and rooted is None:
        return even, [activation[0]] * len(even)
    other = np.zeros_like(even) if odd is None else odd
    matrix = np.hstack([even, other])
    given = [activation[0]] * len(even)
    if rooted is None:
        return matrix, given
    return np.vstack([matrix, np.hstack([2 * other, even])]), given + [rooted] * len(even)


def graphs(
    workload: LayerWorkload,
    weight: Format,
    activation: Format,
    codes: NDArray[Any],
    rows: int = BLOCK_ROWS,
    columns: int = BLOCK_COLUMNS,
) -> list[AdderGraph]:
    """Return the adder graph of every group of a layer; ``codes`` of the weights have output channels as the first axis."""
    given = inputs(activation)
    made = [embedded(even, odd, given) for even, odd in matrices(workload, weight, codes)]
    return [adder_graph(matrix, intervals, rows=rows, columns=columns) for matrix, intervals in made]


@lru_cache(maxsize=512)
def decoder(fmt: Format) -> tuple[int, int]:
    """Return the LUTs that turn one code into a fixed-point number (two for Z[sqrt(2)]), and that number's bits.

    A truth table for each of its bits that is not constant, a bit of the code or a bit that there is already. Two's complement
    and unsigned integers need none.
    """
    usable = np.flatnonzero(np.isfinite(fmt.values))
    numbers = whole_numbers("activations", fmt, usable.astype(fmt.code_dtype))
    given = {tuple((usable >> bit & 1).tolist()) for bit in range(fmt.bits)}
    wanted: set[tuple[int, ...]] = set()
    width = 0
    for table, interval in zip((numbers.even, numbers.odd), inputs(fmt), strict=True):
        if table is not None and interval is not None:
            bits = max((-interval.low - 1).bit_length(), interval.high.bit_length()) + (interval.low < 0)
            width += bits
            wanted |= {tuple((table[usable] >> bit & 1).tolist()) for bit in range(bits)}
    tables = [column for column in wanted - given if len(set(column)) > 1]
    return rom_luts(len(tables), 2**fmt.bits), width
