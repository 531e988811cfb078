"""Formats and inputs that the tests share."""

import dataclasses
import re
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

import formats
from formats import Format

REPRESENTATIVE = (
    *("int2", "int3", "int4", "int5", "int8", "int8_narrow", "int16"),
    *("uint1", "uint4", "uint8", "uint16", "ternary", "binary"),
    *("e1m0", "e1m2", "e2m0", "e2m1", "e3m0", "e2m3", "e3m2", "e4m3", "e5m2", "e5m10", "e8m0", "e8m2"),
    *("ue1m1", "ue2m2", "ue4m4", "ue5m0", "ue8m1"),
    *("pot2", "pot3", "pot4", "pot5", "pot8", "post2", "post3", "post4", "post5", "post6", "post9"),
    *("ulog2_1", "ulog2_2", "ulog2_4", "ulog2_8", "ulogsqrt2_1", "ulogsqrt2_2", "ulogsqrt2_5", "ulogsqrt2_9"),
)
SMALL = tuple(name for name in REPRESENTATIVE if formats.get(name).bits <= 6)


def numbers(pattern: str, low: int, high: int) -> list[str]:
    return [pattern.format(b=bits) for bits in range(low, high + 1)]


def minifloats(widths: range, *, signed: bool) -> list[str]:
    pairs = [(e, width - signed - e) for width in widths for e in range(1, min(width - signed, 10) + 1)]
    return [f"{'' if signed else 'u'}e{e}m{m}" for e, m in pairs]


#: every valid name
NAMES = (
    *numbers("int{b}", 2, 16),
    *numbers("int{b}_narrow", 2, 16),
    *numbers("uint{b}", 1, 16),
    *minifloats(range(2, 17), signed=True),
    *minifloats(range(2, 17), signed=False),
    *numbers("pot{b}", 2, 8),
    *numbers("post{b}", 2, 9),
    *numbers("apot{b}", 2, 8),
    *numbers("uapot{b}", 1, 8),
    *numbers("lloydmax{b}", 1, 8),
    *numbers("ulog2_{b}", 1, 8),
    *numbers("ulogsqrt2_{b}", 1, 9),
    "ternary",
    "binary",
)


@cache
def by_table(name: str) -> Format:
    """The format without its fast closed form: every rounding goes by the table of boundaries."""
    return dataclasses.replace(formats.get(name), closed_form=None)


def random_bits(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Float32 of every magnitude and both signs, infinities included, NaN not."""
    x = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.float32(1), x)


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def assert_same_bits(found: ArrayLike, expected: ArrayLike, message: str = "") -> None:
    """Equal as float32 in every bit: the sign of a zero counts."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected, message)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected), f"sign: {message}")


def exactly(message: str) -> str:
    """A regular expression for the whole message, for ``pytest.raises(match=...)``."""
    return f"^{re.escape(message)}$"
