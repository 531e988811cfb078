"""Reading numbers out of accumulators, against fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from formats.arithmetic import accumulate_kernels as kernels
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.results import RootResult
from formats.arithmetic.sums import FLOAT32, FLOAT64, Sums, round_integer, round_with_root
from tests.formats.arithmetic import dot_oracle as oracle

LIMBS = 6
wide = st.integers(-(2 ** (32 * LIMBS - 1)), 2 ** (32 * LIMBS - 1) - 1)
#: numbers whose bits make ties and near ties: a short head, far from a short tail
patterned = st.builds(
    lambda head, up, tail, sign: sign * ((head << up) + tail),
    st.integers(0, 2**55),
    st.integers(0, 130),
    st.integers(-2, 2),
    st.sampled_from([1, -1]),
)


def as_limbs(numbers):
    data = b"".join(int(number).to_bytes(4 * LIMBS, "little", signed=True) for number in numbers)
    return np.ascontiguousarray(np.frombuffer(data, "<u4").reshape(len(numbers), LIMBS).T)


@settings(deadline=None)
@given(st.one_of(wide, patterned), st.integers(-1300, 1100))
@example(2**53 + 1, 0)
@example(2**54 + 3, 0)
@example(-(2**100) - 2**47, -1074 - 60)
@example(2**190 - 1, 900)
@example(0, 0)
@example(3, -1075)
@example(1, -1075)
@example(1, -1074)
@example(-1, -1074 - 63)
@example(2**64 - 1, -1074 - 64)
@example(2**63 + 1, -1074 - 64)
@example(2**63, -1074 - 64)
def test_numbers_are_rounded_once(number, exponent):
    for name, kind in (("float64", FLOAT64), ("float32", FLOAT32)):
        expected = oracle.nearest((Fraction(number) * Fraction(2) ** exponent, Fraction(0)), name)
        by_integers = round_integer(number, exponent, *kind)
        by_limbs = Sums(numbers=as_limbs([number]), limbs=True).rounded(np.array([exponent]), *kind)[0]
        for found in (by_integers, by_limbs):
            assert (found if name == "float64" or abs(found) < 2.0**128 else np.copysign(np.inf, found)) == expected


@settings(deadline=None)
@given(st.lists(st.one_of(wide, patterned), min_size=1, max_size=5), st.integers(0, 70), st.integers(2, 300))
def test_limbs_hold_twos_complement(numbers, shift, bits):
    sums = Sums(numbers=as_limbs(numbers), shift=shift, limbs=True)
    assert sums.to_integers().tolist() == [number << shift for number in numbers]
    wrap = oracle.wrapping(bits)
    assert sums.wrapped(bits).to_integers().tolist() == [wrap(number << shift) for number in numbers]
    assert sums.to_float(-40).tolist() == [
        oracle.nearest((Fraction(n) * Fraction(2) ** (shift - 40), Fraction(0))) for n in numbers
    ]


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.integers(0, 70), st.integers(2, 100))
def test_narrow_numbers(numbers, shift, bits):
    wrap = oracle.wrapping(bits)
    for dtype in (np.int64, np.int32):
        held = [number for number in numbers if abs(number) < 2**31] if dtype == np.int32 else numbers
        sums = Sums(numbers=np.array(held, dtype), shift=shift)
        assert sums.to_integers().tolist() == [number << shift for number in held]
        assert sums.wrapped(bits).to_integers().tolist() == [wrap(number << shift) for number in held]
        for exponent in (-1200, -1074, -3, 990):
            scaled = [Fraction(number) * Fraction(2) ** (shift + exponent) for number in held]
            assert sums.to_float(exponent).tolist() == [oracle.nearest((value, Fraction(0))) for value in scaled]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(2**53), 2**53), st.integers(0, 32 * LIMBS - 60)), max_size=6),
    st.integers(1, 15),
    st.integers(-15, 15),
)
def test_limbs_add_up_and_scale(parts, row, column):
    limbs = np.zeros((LIMBS, 1, 1), np.uint32)
    total = 0
    for number, shift in parts:
        kernels.add_to_limbs(np.array([[number]], np.float64), shift, limbs)
        total += number << shift
    assert Sums(numbers=limbs, limbs=True).to_integers().item() == total
    kernels.scale_limbs(limbs, np.array([row], np.int16), np.array([column], np.int16))
    assert Sums(numbers=limbs, limbs=True).to_integers().item() == total * row * column


# ---- the square root of two ------------------------------------------------------------------------------------------

small = st.integers(-(2**20), 2**20)
int64 = st.one_of(small, st.integers(-(2**63), 2**63 - 1), patterned.filter(lambda n: -(2**63) <= n < 2**63))


def pell(steps):
    """The best approximations of the root: numerators and denominators with n**2 - 2 * d**2 = 1 or -1."""
    n, d = 1, 1
    for _ in range(steps):
        n, d = n + 2 * d, n + d
    return n, d


@settings(deadline=None)
@given(int64, int64, st.sampled_from([0, -6, -254, -900, -1040, 970]))
@example(*pell(48), 0)
@example(2**53 + 1, 0, 0)
@example(0, 2**62 + 1, 0)
@example(-(2**63), -(2**63), 0)
def test_numbers_with_the_root_are_rounded_once(even, odd, exponent):
    unit = Fraction(2) ** exponent
    for pair in ((even, odd), (even, -odd) if odd > -(2**63) else (even, odd)):
        expected = oracle.nearest((pair[0] * unit, pair[1] * unit))
        assert round_with_root(*pair, exponent, *FLOAT64) == expected
        sums = [Sums(numbers=np.array([[part]])) for part in pair]
        result = RootResult(accumulator=Accumulator.exact(), path="integer", unit_exponent=exponent, even=sums[0], odd=sums[1])
        assert result.to_float().item() == expected


@pytest.mark.parametrize("steps", [10, 30, 47, 90, 200])
def test_near_cancellation(steps):
    n, d = pell(steps)
    for even, odd in ((n, -d), (-n, d)):
        expected = oracle.nearest((Fraction(even), Fraction(odd)))
        assert expected != 0
        assert round_with_root(even, odd, 0, *FLOAT64) == expected
        sums = [Sums(numbers=np.array([part], object)) for part in (even, odd)]
        result = RootResult(accumulator=Accumulator.exact(), path="bands", unit_exponent=0, even=sums[0], odd=sums[1])
        assert result.to_float().item() == expected


def test_rounding_with_the_root_overflows_to_infinity():
    assert round_with_root(1, -(10**9), 1020, *FLOAT64) == -np.inf
    assert round_with_root(0, 3, -1200, *FLOAT64) == 0
