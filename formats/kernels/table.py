"""The general loop, for every format and rounding: find the level among the thresholds.

The first 16 bits of a quotient, sign, exponent and the head of the mantissa, nearly always settle its level: a table of 2**16
says which. Where they do not, because a threshold lies between numbers that begin alike, the thresholds are bisected.
"""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import MAGNITUDE, float_bits
from formats.kernels.pieces import scale_at

#: stands in the table of codes where the head of a number does not settle its level
UNSETTLED = np.uint16(0xFFFF)


@compiled
def bisect(x, thresholds):  # type: ignore[no-untyped-def]
    """Count the thresholds at or below ``x``; they are sorted, and a power of two less one in number."""
    level = 0
    half = (len(thresholds) + 1) >> 1
    while half > 0:
        level += half * (x >= thresholds[level + half - 1])
        half >>= 1
    return level


@compiled
def divide(x, scale, block):  # type: ignore[no-untyped-def]
    """Fill ``block`` with ``x / scale`` and return the largest magnitude's bits."""
    worst = np.int32(0)
    for i in range(len(x)):
        q = x[i] / scale_at(scale, i)
        worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
        block[i] = q
    return worst


@compiled
def _searched(x, p, t):  # type: ignore[no-untyped-def]
    code = t.level_codes[bisect(x, t.thresholds)]
    return p.negative_zero if code == p.zero and np.signbit(x) else code


@compiled
def _heads(block, heads):  # type: ignore[no-untyped-def]
    for i in range(len(heads)):
        heads[i] = np.int32(float_bits(block[i]) >> np.int32(16))


@compiled
def _look_up(heads, table, out):  # type: ignore[no-untyped-def]
    for i in range(len(heads)):
        out[i] = table[heads[i]]


@compiled
def table_codes(x, scale, p, t, block, codes):  # type: ignore[no-untyped-def]
    """Write the codes of ``x / scale``, leave the quotients in ``block`` and return the largest magnitude's bits."""
    worst = divide(x, scale, block)
    heads = np.empty(len(x), np.uint16)
    found = np.empty(len(x), np.uint16)
    _heads(block, heads)
    _look_up(heads, t.head_codes, found)
    for i in range(len(x)):
        codes[i] = found[i]
    if found.max() == UNSETTLED:
        for i in range(len(x)):
            if found[i] == UNSETTLED:
                codes[i] = _searched(block[i], p, t)
    return worst


@compiled
def table_levels(x, scale, p, t, block):  # type: ignore[no-untyped-def]
    """Leave the levels of ``x / scale`` in ``block``, and NaN where it is; return the largest quotient's bits."""
    worst = divide(x, scale, block)
    heads = np.empty(len(x), np.uint16)
    _heads(block, heads)
    quotients = block[: len(x)]
    levels = np.empty(len(x), np.float32)
    _look_up(heads, t.head_values, levels)
    for i in range(len(x)):
        if levels[i] != levels[i]:
            levels[i] = t.values[_searched(quotients[i], p, t)] if quotients[i] == quotients[i] else quotients[i]
    block[: len(x)] = levels
    return worst
