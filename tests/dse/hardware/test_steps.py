"""Steps of whole-number programs, against Python's own integers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import formats
from dse.hardware import steps

numbers = st.lists(st.integers(-(2**30), 2**30), min_size=1, max_size=40)


def run(step: steps.Step, *operands: object) -> list[int]:
    return [int(x) for x in step.run(*(torch.tensor(operand, dtype=torch.int64) for operand in operands)).flatten()]


def rounded(x: int, multiplier: int, divisor: int, *, even: bool) -> int:
    whole, rest = divmod(x * multiplier, divisor)
    if 2 * rest != divisor:
        return whole + (2 * rest > divisor)
    return whole + (whole % 2 if even else 1)


@given(numbers, st.integers(0, 2**31 - 1), st.integers(0, 62), st.booleans())
def test_rescale_rounds_the_exact_quotient_once(x: list[int], multiplier: int, shift: int, even: bool) -> None:
    step = steps.Rescale(multiplier=np.array(multiplier), divisor=np.array(1 << shift), even=even)
    assert run(step, x) == [rounded(each, multiplier, 1 << shift, even=even) for each in x]


@given(numbers, st.integers(0, 2**31 - 1), st.integers(1, 2**40), st.booleans())
def test_rescale_divides_by_any_number(x: list[int], multiplier: int, divisor: int, even: bool) -> None:
    step = steps.Rescale(multiplier=np.array(multiplier), divisor=np.array(divisor), even=even)
    assert run(step, x) == [rounded(each, multiplier, divisor, even=even) for each in x]


@given(numbers, st.integers(1, 30))
def test_rescale_to_even_is_the_requantizer_by_shift(x: list[int], shift: int) -> None:
    step = steps.Rescale(multiplier=np.array(1), divisor=np.array(1 << shift), even=True)
    clamped = np.clip(run(step, x), -128, 127)
    expected = formats.requantize_by_shift(np.array(x), shift, "int8")
    assert (clamped & 255).tolist() == expected.tolist()


@given(numbers, st.floats(1e-6, 0.9))
def test_rescale_up_is_the_requantizer_of_one_rounding(x: list[int], real: float) -> None:
    multiplier, shift = formats.quantize_multiplier(real)
    step = steps.Rescale(multiplier=np.array(multiplier), divisor=np.array(1 << (31 - shift)), even=False)
    expected = formats.requantize(np.array(x), multiplier, shift, "int16", variant="single")
    assert (np.clip(run(step, x), -(2**15), 2**15 - 1) & 0xFFFF).tolist() == expected.tolist()


@given(st.lists(st.one_of(st.integers(0, 2**62 - 1), st.integers(0, 2**31 - 1).map(lambda x: x * x)), min_size=1))
def test_the_square_root_is_that_of_whole_numbers(x: list[int]) -> None:
    assert run(steps.SquareRoot(), x) == [math.isqrt(each) for each in x]


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_the_square_root_holds_around_every_large_square(offset: int) -> None:
    x = [root * root + offset for root in range(2**31 - 50, 2**31)]
    assert run(steps.SquareRoot(), x) == [math.isqrt(each) for each in x]


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1), st.integers(1, 2**20))
def test_division_rounds_down(x: list[int], divisor: int) -> None:
    assert run(steps.FloorDivide(by=divisor), x) == [each // divisor for each in x]
    assert run(steps.FloorDivide(), x, [divisor] * len(x)) == [each // divisor for each in x]


def test_compare_counts_the_thresholds_reached_by_channel() -> None:
    thresholds = np.array([[[-2, 0, 5]], [[0, 1, 2]]])[np.newaxis]
    step = steps.Compare(thresholds=thresholds, codes=np.array([7, 8, 9, 10]))
    assert run(step, [[[-3, -2, 5], [-1, 1, 9]]]) == [7, 8, 10, 7, 9, 10]
    shared = steps.Compare(thresholds=thresholds[:, :1], codes=np.array([7, 8, 9, 10]))
    assert run(shared, [[[-3, -2, 5], [-1, 1, 9]]]) == [7, 8, 10, 8, 9, 10]


def test_look_takes_the_ends_beyond_the_table() -> None:
    assert run(steps.Look(table=np.array([5, 6, 7]), first=-1), [-9, -1, 0, 1, 9]) == [5, 5, 6, 7, 7]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(2, 2, 0, 1), (3, 1, 1, 1), (3, 2, 1, 2), (2, 3, 1, 1)])
def test_the_largest_of_windows_is_that_of_torch(kernel: int, stride: int, padding: int, dilation: int) -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(-99, 99, (2, 3, 9, 8)))
    step = steps.LargestWindow(
        kernel=(kernel,) * 2, stride=(stride,) * 2, padding=(padding,) * 2, dilation=(dilation,) * 2, lowest=-99, size=(9, 8)
    )
    expected = torch.nn.functional.max_pool2d(x.double(), kernel, stride, padding, dilation)
    assert torch.equal(step.run(x).double(), expected)
