"""Block formats: find the scale that a block's elements share, then round the elements by it, a few blocks at a time.

Arrays are (outer, length, inner), flat, with the blocks along the middle axis; scales are (outer, blocks, inner). A unit is
blocks side by side: unit u is block ``u % blocks`` of all ``inner`` columns at the outer index ``u // blocks``.
"""

from typing import Any, NamedTuple

import numpy as np

from formats.compiled import compiled
from formats.kernels.decode import decode_closed, decode_table
from formats.kernels.elements import INFINITY, MAGNITUDE, PLACES, as_float, float_bits, floating_bits, floating_code
from formats.kernels.encode import encode_closed, encode_general
from formats.kernels.parameters import Parameters, Tables
from formats.kernels.pieces import BLOCK
from formats.kernels.quantize import quantize_closed, quantize_general

#: columns worked on together where blocks do not run along the last axis
COLUMNS = 1024
E8M0_BIAS = 127  # that of float32 too
LARGEST_E8M0_CODE = np.int32(254)  # 255 is NaN


class ScaleParameters(NamedTuple):
    """How a block's scale follows from its largest magnitude: numbers only, so that a call for each block costs little."""

    #: whether scales are powers of two; else they are levels of a floating format times the tensor's scale
    powers: bool
    #: exponent of the largest element, and of an element's unit
    largest_exponent: int
    unit_exponent: int
    #: the tensor's scale, and the largest element times it
    tensor: np.float32
    reach: np.float32
    #: largest and smallest level of the scales' format, its mantissa bits and its smallest normal number's exponent
    high: np.float32
    low: np.float32
    mantissa_bits: int
    minimum_exponent: int


class BlockParameters(NamedTuple):
    """What the loops need to know of a block format."""

    #: elements of a block
    block: int
    element: Parameters
    tables: Tables
    scale: ScaleParameters


@compiled
def _power_scales(largest, s, codes, factors):  # type: ignore[no-untyped-def]
    """Take floor(log2) of the largest magnitude from its bits, so that it is never rounded."""
    below, unit = np.int32(s.largest_exponent), np.int32(s.unit_exponent)
    for i in range(len(largest)):
        code = np.int32(min(max(np.int32(np.int32(largest[i] >> np.int32(23)) - below), np.int32(0)), LARGEST_E8M0_CODE))
        code = np.int32(0) if largest[i] == 0 else code
        field = np.int32(code + unit)  # of a float32; below 1 the power of two is a subnormal number
        subnormal = np.int32(np.int32(1 << 22) >> np.int32(np.int32(-field) & PLACES))
        codes[i] = code
        factors[i] = as_float(np.int32(field << np.int32(23)) if field >= 1 else subnormal)


@compiled
def _ratio_scales(largest, s, codes, factors):  # type: ignore[no-untyped-def]
    """Round the ratio of the largest magnitude to what the format reaches; never to zero, which could not be divided by."""
    dropped = np.int32(23 - s.mantissa_bits)
    dropped_exponent = np.int32(dropped << 23)
    first_normal = np.int32((s.minimum_exponent + 127) << 23)
    for i in range(len(largest)):
        ratio = np.float32(1) if largest[i] == 0 else np.float32(as_float(largest[i]) / s.reach)
        magnitude = float_bits(min(max(ratio, s.low), s.high))
        codes[i] = floating_code(magnitude, first_normal, dropped_exponent, dropped)
        factors[i] = as_float(floating_bits(magnitude, first_normal, dropped_exponent)) * s.tensor


@compiled
def _scales(largest, s, codes, factors):  # type: ignore[no-untyped-def]
    """Find scales and what elements are multiplied by, from the bits of largest magnitudes; return the largest of these."""
    if s.powers:
        _power_scales(largest, s, codes, factors)
    else:
        _ratio_scales(largest, s, codes, factors)
    worst = np.int32(0)
    for i in range(len(largest)):
        worst = max(worst, largest[i])
    return worst


@compiled
def largest_bits(x: Any) -> Any:
    """Return the bits of the largest magnitude in a contiguous array; NaN counts as larger than infinity."""
    largest = np.int32(0)
    for i in range(len(x)):
        largest = max(largest, np.int32(float_bits(x[i]) & MAGNITUDE))
    return largest


@compiled
def _largest_of_rows(rows, largest):  # type: ignore[no-untyped-def]
    for number in range(rows.shape[0]):
        found = np.int32(0)
        for i in range(rows.shape[1]):
            found = max(found, np.int32(float_bits(rows[number, i]) & MAGNITUDE))
        largest[number] = found


@compiled
def _fill_rows(factors, rows):  # type: ignore[no-untyped-def]
    for number in range(rows.shape[0]):
        factor = factors[number]
        for i in range(rows.shape[1]):
            rows[number, i] = factor


@compiled
def _spread(factors, block, out):  # type: ignore[no-untyped-def]
    """Repeat each block's number for all of its elements; the last block may be shorter."""
    whole = len(out) // block
    _fill_rows(factors, out[: whole * block].reshape(whole, block))
    if whole < len(factors):
        out[whole * block :] = factors[whole]


@compiled
def _row_scales(x, block, s, codes, largest, factors, spread):  # type: ignore[no-untyped-def]
    """Find the scales of neighbouring blocks of one row, and spread what they stand for over the elements."""
    whole, count = len(x) // block, len(codes)
    _largest_of_rows(x[: whole * block].reshape(whole, block), largest)
    if whole < count:
        largest[whole] = largest_bits(x[whole * block :])
    worst = _scales(largest[:count], s, codes, factors)
    _spread(factors[:count], block, spread[: len(x)])
    return worst


@compiled
def _column_scales(x, columns, inner, s, codes, largest, factors):  # type: ignore[no-untyped-def]
    """Find the scales of blocks side by side: ``x`` holds their rows, ``inner`` apart, of which the first ``columns`` count."""
    largest[:columns] = 0
    for start in range(0, len(x), inner):
        source = x[start : start + columns]
        for i in range(len(source)):
            largest[i] = max(largest[i], np.int32(float_bits(source[i]) & MAGNITUDE))
    return _scales(largest[:columns], s, codes, factors)


@compiled
def _stretch(unit, stop, blocks, block):  # type: ignore[no-untyped-def]
    """Return how many blocks of one row are worked on together from ``unit`` on."""
    return min(stop - unit, blocks - unit % blocks, max(1, BLOCK // block))


@compiled
def _span(unit, count, length, inner, block):  # type: ignore[no-untyped-def]
    """Return where ``count`` blocks begin and end in the flat array."""
    blocks = -(-length // block)
    row, first = unit // blocks * length, unit % blocks * block
    return (row + first) * inner, (row + min(length, first + count * block)) * inner


@compiled
def quantize_blocks(x: Any, length: Any, inner: Any, b: Any, start: Any, stop: Any, out: Any) -> Any:
    """Quantize units ``start`` to ``stop``; return the largest magnitude's bits, and stop where it is no number."""
    blocks, e, t = -(-length // b.block), b.element, b.tables
    aside = np.empty(max(BLOCK, b.block), np.float32)
    spread = np.empty(max(BLOCK, b.block), np.float32)
    factors = np.empty(max(BLOCK, COLUMNS), np.float32)
    codes = np.empty(max(BLOCK, COLUMNS), np.uint8)
    largest = np.empty(max(BLOCK, COLUMNS), np.int32)
    unit = start
    while unit < stop:
        count = _stretch(unit, stop, blocks, b.block) if inner == 1 else 1
        first, last = _span(unit, count, length, inner, b.block)
        if inner == 1:
            if _row_scales(x[first:last], b.block, b.scale, codes[:count], largest, factors, spread) >= INFINITY:
                return INFINITY
            if e.closed:
                quantize_closed(x[first:last], spread[: last - first], e, out[first:last])
            else:
                quantize_general(x[first:last], first, spread[: last - first], e, t, aside, out[first:last])
        else:
            for column in range(0, inner, COLUMNS):
                width = min(COLUMNS, inner - column)
                if _column_scales(x[first + column : last], width, inner, b.scale, codes, largest, factors) >= INFINITY:
                    return INFINITY
                for begin in range(first + column, last, inner):
                    end = begin + width
                    if e.closed:
                        quantize_closed(x[begin:end], factors[:width], e, out[begin:end])
                    else:
                        quantize_general(x[begin:end], begin, factors[:width], e, t, aside, out[begin:end])
        unit += count
    return np.int32(0)


@compiled
def encode_blocks(x: Any, length: Any, inner: Any, b: Any, start: Any, stop: Any, codes: Any, scales: Any) -> Any:
    """Encode units ``start`` to ``stop`` in the same way; ``scales`` is flat too, ``inner`` for each unit."""
    blocks, e, t = -(-length // b.block), b.element, b.tables
    aside = np.empty(max(BLOCK, b.block), np.float32)
    spread = np.empty(max(BLOCK, b.block), np.float32)
    factors = np.empty(max(BLOCK, COLUMNS), np.float32)
    largest = np.empty(max(BLOCK, COLUMNS), np.int32)
    unit = start
    while unit < stop:
        count = _stretch(unit, stop, blocks, b.block) if inner == 1 else 1
        first, last = _span(unit, count, length, inner, b.block)
        if inner == 1:
            found = scales[unit : unit + count]
            if _row_scales(x[first:last], b.block, b.scale, found, largest, factors, spread) >= INFINITY:
                return INFINITY
            if e.closed:
                encode_closed(x[first:last], spread[: last - first], e, codes[first:last])
            else:
                encode_general(x[first:last], first, spread[: last - first], e, t, aside, codes[first:last])
        else:
            for column in range(0, inner, COLUMNS):
                width = min(COLUMNS, inner - column)
                found = scales[unit * inner + column : unit * inner + column + width]
                if _column_scales(x[first + column : last], width, inner, b.scale, found, largest, factors) >= INFINITY:
                    return INFINITY
                for begin in range(first + column, last, inner):
                    end = begin + width
                    if e.closed:
                        encode_closed(x[begin:end], factors[:width], e, codes[begin:end])
                    else:
                        encode_general(x[begin:end], begin, factors[:width], e, t, aside, codes[begin:end])
        unit += count
    return np.int32(0)


@compiled
def decode_blocks(codes: Any, length: Any, inner: Any, factors: Any, b: Any, start: Any, stop: Any, out: Any) -> Any:
    """Decode units ``start`` to ``stop``; ``factors`` is what each block's elements are multiplied by, flat."""
    blocks, e, t = -(-length // b.block), b.element, b.tables
    spread = np.empty(max(BLOCK, b.block), np.float32)
    unit = start
    while unit < stop:
        count = _stretch(unit, stop, blocks, b.block) if inner == 1 else 1
        first, last = _span(unit, count, length, inner, b.block)
        if inner == 1:
            _spread(factors[unit : unit + count], b.block, spread[: last - first])
            if decode_closed(codes[first:last], spread[: last - first], e, out[first:last]):
                decode_table(codes[first:last], spread[: last - first], t.values, out[first:last])
        else:
            for begin in range(first, last, inner):
                end = begin + inner
                part = factors[unit * inner : (unit + 1) * inner]
                if decode_closed(codes[begin:end], part, e, out[begin:end]):
                    decode_table(codes[begin:end], part, t.values, out[begin:end])
        unit += count
