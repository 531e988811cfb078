"""What the loops need to know of a format and of how it is rounded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UNIFORM, FLOATING, SHORTENED, LOGARITHMIC, TABLE = range(5)


class Parameters(NamedTuple):
    """Numbers for one format and one rounding; unused ones are zero."""

    #: one of the kinds above: how codes are found
    kind: int
    #: the same for how they are decoded
    decoded_kind: int
    #: whether values are rounded at random to one of their two neighbours
    stochastic: bool
    #: whether rounding needs neither tables nor random numbers
    closed: bool
    #: whether the levels are so few that each is compared with
    few: bool
    #: smallest and largest level
    low: np.float32
    high: np.float32
    #: number of bits of a code
    bits: int
    #: stored mantissa bits, or steps per octave of a logarithmic format
    mantissa_bits: int
    #: exponent of the smallest normal number of a floating format
    minimum_exponent: int
    #: smallest magnitude that a logarithmic format does not round to zero
    first: np.float32
    #: how many steps below 1 its smallest level lies
    deepest: int
    #: whether codes carry a sign
    signed: bool
    #: code of the level zero, and of minus zero (or the same)
    zero: int
    negative_zero: int
    #: code of NaN, or -1
    nan: int
    #: codes whose magnitude is above this, and this one code, are decoded by table
    last_regular: int
    irregular: int
    #: which random sequence stochastic rounding draws from
    key: np.uint64


class Tables(NamedTuple):
    """Arrays for one format and one rounding; apart from the numbers, since passing arrays costs as much as a short loop."""

    #: float32, one less than levels, padded with infinity: the smallest number that is rounded to each level but the first, or
    #: for stochastic rounding that may not be rounded to the level below it: the level itself
    thresholds: NDArray[np.float32]
    #: int64: code of each level
    level_codes: NDArray[np.int64]
    #: uint16 and float32 of 2**16, by the first 16 bits of a number: the code and the value of its level, or 0xFFFF and NaN
    #: where those bits do not settle it
    head_codes: NDArray[np.uint16]
    head_values: NDArray[np.float32]
    #: float32, float32 and int32 for levels that are few: the thresholds, padded with NaN, and value and code of each level
    few_thresholds: NDArray[np.float32]
    few_values: NDArray[np.float32]
    few_codes: NDArray[np.int32]
    #: float32: value of each code
    values: NDArray[np.float32]


class Rule(NamedTuple):
    """Both."""

    numbers: Parameters
    tables: Tables
