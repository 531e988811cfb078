"""A product with a constant matrix as a graph of adders, by da4ml (Sun et al., arXiv 2507.04535).

Every weight is a sum of signed powers of two; da4ml shares what the sums of several outputs have in common, and what is left is
additions and subtractions of shifted values. There are no multipliers and no weight memory.

The graph is the one that da4ml would generate hardware from: its tracer replays the solution with the interval of every value.
(``da4ml.cmvm.solve`` reports costs of its own, some percent lower: its second stage does not see the first one's shifts and
signs.) A matrix is cut into blocks of columns, which share nothing with one another, and into blocks of rows, whose partial
sums a balanced tree adds; both are traced as one graph, so that the cost of partial sums is counted like any other.

Needs da4ml: ``pip install bitatlas[unrolled]``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError, MissingPackageError

#: rows and columns of a block: time grows with the cube of a block's side, LUTs of smaller blocks are a few percent more
BLOCK_ROWS = 64
BLOCK_COLUMNS = 64
#: magnitudes are below two to this power: da4ml keeps a weight's signed digits in 32-bit integers
WEIGHT_BITS = 31
#: da4ml's opcodes of additions and subtractions
_ADDITIONS = (0, 1)


class Interval(NamedTuple):
    """Whole numbers from ``low`` to ``high``, both included, that are multiples of the power of two ``step``."""

    low: int
    high: int
    step: int = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class AdderGraph:
    """``x @ matrix`` for whole numbers ``x`` in known intervals."""

    #: rows and columns of the matrix
    shape: tuple[int, int]
    #: da4ml's ``CombLogic``: operations in order, each with its interval, depth and cost
    logic: Any

    @cached_property
    def lut(self) -> float:
        """LUTs by da4ml's count: a LUT for each bit of each adder, from the coarser operand's last place to the wider's first.

        That is what a carry chain takes; shifts are free, and so is the sign of an output, which its reader absorbs.
        """
        return float(self.logic.cost)

    @cached_property
    def adders(self) -> int:
        """Additions and subtractions of two values."""
        return sum(operation.opcode in _ADDITIONS for operation in self.logic.ops)

    @cached_property
    def depth(self) -> int:
        """Adders on the longest way from an input to an output."""
        return int(self.logic.latency[1])

    @cached_property
    def output_bits(self) -> int:
        """Width of the widest output: its interval follows from the weights, so it is no more than a sum of any weights needs."""
        return max(_width(interval) for interval in self.logic.out_qint)

    def stages(self, levels: int) -> int:
        """Return the clock cycles from inputs to outputs with registers after every ``levels`` adders and at the outputs."""
        if levels < 1:
            raise InvalidValueError(f"levels of adders between registers must be at least 1, not {levels}")
        return max(1, math.ceil(self.depth / levels))

    def flip_flops(self, levels: int) -> int:
        """Return the bits of those registers: every value that is read after a register, or is an output, as wide as its interval.

        Inputs come from registers of whatever computes them, which are not counted.
        """
        stages = self.stages(levels)
        operations = self.logic.ops
        made = [math.ceil(operation.latency / levels) or 1 for operation in operations]  # the stage that a value is ready in
        read = list(made)
        for operation, stage in zip(operations, made, strict=True):
            if operation.opcode in _ADDITIONS:
                for source in (operation.id0, operation.id1):
                    read[source] = max(read[source], stage)
        for index in self.logic.out_idxs:
            if index >= 0:
                read[index] = stages + 1
        return sum(
            _width(operation.qint) * (last - stage)
            for operation, stage, last in zip(operations, made, read, strict=True)
            if last > stage
        )

    def run(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what da4ml's own interpreter of the graph gives for rows ``x`` (M, K), int64 of shape (M, N).

        Numbers outside of the intervals wrap, as in hardware.
        """
        given = np.ascontiguousarray(x, np.float64)
        return np.asarray(self.logic.predict(given, n_threads=1), np.float64).reshape(len(x), self.shape[1]).astype(np.int64)


def adder_graph(
    matrix: NDArray[np.int64], inputs: Sequence[Interval], *, rows: int = BLOCK_ROWS, columns: int = BLOCK_COLUMNS
) -> AdderGraph:
    """Find a graph for a matrix (K, N) of whole numbers and K inputs, in blocks of at most ``rows`` by ``columns``.

    Raises ``ValueError`` for weights of more than 31 bits of magnitude beyond their common power of two, and
    ``MissingPackageError`` without da4ml.
    """
    if matrix.ndim != 2 or 0 in matrix.shape or len(inputs) != len(matrix):
        shape = f"{matrix.shape} for {len(inputs)} inputs"
        raise InvalidValueError(f"matrix must have a row for each input and at least one column, not the shape {shape}")
    if min(rows, columns) < 1:
        raise InvalidValueError(f"blocks must have at least one row and one column, not {rows} x {columns}")
    largest = int(np.abs(matrix).max())
    if largest.bit_length() > WEIGHT_BITS:
        raise InvalidValueError(f"weights in LSBs must be below 2**{WEIGHT_BITS} for an adder graph, not {largest}")
    trace = _tracer()
    hardware = trace.HWConfig(1, -1, -1)  # a cost for each bit, one level for each adder, no registers
    low, high, step = (np.asarray(bound, np.float64) for bound in zip(*inputs, strict=True))
    options = {"search_all_decompose_dc": False}  # searching takes four times as long for some tenths of a percent
    x = trace.FixedVariableArray.from_lhs(low, high, step, hardware, solver_options=options)
    kernel = matrix.astype(np.float32)
    if (kernel != matrix).any():
        raise InvalidValueError("weights in LSBs must be exact in float32 for an adder graph, not of more than 24 bits")
    outputs = [_summed(x, kernel[:, at : at + columns], rows) for at in range(0, matrix.shape[1], columns)]
    return AdderGraph(shape=(matrix.shape[0], matrix.shape[1]), logic=trace.comb_trace(x, np.concatenate(outputs)))


def _summed(x: Any, kernel: NDArray[np.float32], rows: int) -> Any:
    """Return the columns' outputs: partial sums of ``rows`` inputs each, added in a balanced tree."""
    parts = [x[at : at + rows] @ kernel[at : at + rows] for at in range(0, len(kernel), rows)]
    while len(parts) > 1:
        pairs = [parts[at] + parts[at + 1] for at in range(0, len(parts) - 1, 2)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]


def _width(interval: tuple[float, float, float]) -> int:
    """Bits of a value, its sign included."""
    low, high, step = (float(bound) for bound in interval)
    if low == high == 0:
        return 0
    magnitude = max(-low / step, high / step + 1)
    return math.ceil(math.log2(magnitude)) + (low < 0) if magnitude > 1 else int(low < 0)


def _tracer() -> Any:
    try:
        from da4ml import trace
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "da4ml":
            raise
        raise MissingPackageError("da4ml", "the unrolled style", extra="unrolled") from None
    return trace
