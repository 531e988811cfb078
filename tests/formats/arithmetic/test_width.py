"""Register widths, against every input there is."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.matmul import matmul
from formats.arithmetic.width import a2q_bits, a2q_weight_bits, bound_bits, required_bits
from tests.formats.arithmetic import dot_oracle as oracle

SMALL = ("int2", "uint1", "uint2", "binary", "ternary", "e1m1", "e2m0", "ue1m1", "post3", "ulogsqrt2_2", "pot2", "float8_e8m0fnu")


def whole(name):
    unit = oracle.Fraction(2) ** oracle.lsb_exponent(name)
    found = [oracle.numbers(name)[code] for code in oracle.usable(name)]
    return [(int(number[0] / unit), int(number[1] / unit)) for number in found]


def width_of(prefixes):
    """Smallest width, at least 2, that holds all these sums."""
    bits = 2
    while not all(-(2 ** (bits - 1)) <= total < 2 ** (bits - 1) for total in prefixes):
        bits += 1
    return bits


def by_every_input(weights, a_name):
    """The even and the odd width that one column needs."""
    prefixes = [(0, 0)]
    for inputs in itertools.product(whole(a_name), repeat=len(weights)):
        even = odd = 0
        for a, w in zip(inputs, weights, strict=True):
            product = oracle.times(a, w)
            even, odd = even + product[0], odd + product[1]
            prefixes.append((even, odd))
    return tuple(width_of([prefix[part] for prefix in prefixes]) for part in (0, 1))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SMALL[:-1]), st.sampled_from(SMALL), st.integers(0, 4), st.integers(0, 2**32))
def test_required_bits_are_those_of_the_worst_input(a_name, w_name, depth, seed):
    rng = np.random.default_rng(seed)
    w = rng.choice(oracle.usable(w_name)[:100], (depth, 2)).astype(np.uint8)
    found = required_bits(w, w_name, a_name)
    numbers = dict(zip(oracle.usable(w_name).tolist(), whole(w_name), strict=True))
    expected = [by_every_input([numbers[code] for code in column.tolist()], a_name) for column in w.T]
    assert found.even.tolist() == [column[0] for column in expected]
    if found.odd is not None:
        assert found.odd.tolist() == [column[1] for column in expected]
    assert (found.odd is None) == (not any(name.startswith(("post", "ulogsqrt2")) for name in (a_name, w_name)))
    assert found.per_column.tolist() == [max(column) for column in expected]
    assert found.overall == max((max(column) for column in expected), default=2)


def test_a_prefix_may_need_more_than_the_whole_sum():
    """Inputs of float8_e8m0fnu are never zero: 2**127 and -1 of them must be taken, whatever comes after."""
    w = np.uint8([[1], [255]])
    assert required_bits(w, "int8", "uint8").overall == 9
    up_then_down = required_bits(np.uint8([[1], [1], [255], [255]]), "int8", "binary")
    assert up_then_down.overall == width_of([-4, 4])
    positive = required_bits(np.uint8([[1], [0]]), "binary", "float8_e8m0fnu").overall
    assert positive == (2**254).bit_length() + 1


def test_a_register_of_the_required_width_never_saturates_and_one_less_does():
    rng = np.random.default_rng(0)
    w = rng.integers(0, 256, (50, 7)).astype(np.uint8)
    found = required_bits(w, "int8", "uint4")
    numbers = w.view(np.int8)
    worst = np.where(numbers > 0, 15, 0).T.astype(np.uint8), np.where(numbers < 0, 15, 0).T.astype(np.uint8)
    for column, bits in enumerate(found.per_column.tolist()):
        sums = [matmul(a[column : column + 1], "uint4", w[:, column : column + 1], "int8") for a in worst]
        narrower = [
            matmul(a[column : column + 1], "uint4", w[:, column : column + 1], "int8", Accumulator.fixed(bits - 1)) for a in worst
        ]
        exact = [total.to_integers().item() for total in sums]
        assert width_of(exact) == bits
        assert [total.to_integers().item() for total in narrower] != exact


#: "tight" column for n = 4608 and both operands of one format (arXiv 2311.12359 gives the closed forms)
TIGHT = {
    **{"e1m1": 17, "e2m0": 18, "e3m0": 26, "e2m1": 21, "e1m2": 19, "e4m0": 42, "e3m1": 29, "e2m2": 23, "e1m3": 21},
    **{"e3m2": 31, "e2m3": 25, "e4m1": 45, "e4m2": 47, "e3m3": 33, "e2m4": 28, "e5m2": 79, "e4m3": 49, "e3m4": 36, "e2m5": 30},
}


@pytest.mark.parametrize("name", TIGHT)
def test_bounds_of_minifloats(name):
    exponent, mantissa = int(name[1]), int(name[3])
    assert bound_bits(name, name, 4608) == TIGHT[name]
    assert bound_bits(name, name, 4608) <= 2 * (2**exponent + mantissa) + math.ceil(math.log2(4608)) - 1


@pytest.mark.parametrize("bits", range(3, 9))
def test_bounds_of_integers(bits):
    signed, unsigned = bound_bits(f"int{bits}", f"int{bits}", 4608), bound_bits(f"uint{bits}", f"int{bits}", 4608)
    assert signed == a2q_bits(bits, bits, 4608, signed=True) == 2 * bits + 12
    assert unsigned <= a2q_bits(bits, bits, 4608, signed=False) == 2 * bits + 13
    alpha = math.log2(4608) + 2 * bits - 1
    assert a2q_bits(bits, bits, 4608, signed=False) == math.ceil(alpha + math.log2(1 + 2**-alpha) + 1)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SMALL[:-1]), st.sampled_from(SMALL[:-1]), st.integers(0, 4))
def test_the_bound_is_what_the_worst_weights_need(a_name, w_name, length):
    columns = list(itertools.combinations_with_replacement(oracle.usable(w_name).tolist(), length))
    weights = np.array(columns, np.uint8).reshape(len(columns), length).T
    assert bound_bits(a_name, w_name, length) == required_bits(weights, w_name, a_name).overall


def test_wide_bounds_and_weights():
    assert bound_bits("bfloat16", "bfloat16", 1) == 2 * (255 * 2**253).bit_length() + 1
    largest = np.array([[0x7F7F]], np.uint16)
    assert required_bits(largest, "bfloat16", "bfloat16").overall == bound_bits("bfloat16", "bfloat16", 1)
    assert bound_bits("post4", "post4", 10) == required_bits(np.full((10, 1), 7, np.uint8), "post4", "post4").overall


def test_weight_bound_of_a2q():
    for norm, bits, signed in itertools.product((0, 1, 5, 127, 4096), (1, 4, 8), (False, True)):
        beta = math.log2(norm) + bits - signed if norm else -math.inf
        expected = math.ceil(beta + math.log2(1 + 2**-beta) + 1) if norm else 2
        assert a2q_weight_bits(norm, bits, signed=signed) == max(expected, 2)
    w = np.uint8([[3], [253], [1]])
    assert required_bits(w, "int8", "int4").overall <= a2q_weight_bits(7, 4, signed=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: required_bits(np.zeros(3, np.uint8), "int8", "int8"), "codes of w must have 2 axes (K, N), not the shape (3,)"),
        (
            lambda: required_bits(np.uint8([[0x7F]]), "float8_e4m3fn", "int8"),
            "codes of w (float8_e4m3fn) must be finite numbers, not NaN or Inf in 1 elements",
        ),
        (
            lambda: bound_bits("mxfp4", "int8", 3),
            "format must be one whose codes stand alone here, not the block format mxfp4",
        ),
        (lambda: bound_bits("int8", "int8", -1), "length of a dot product must be at least 0, not -1"),
        (lambda: a2q_bits(8, 8, 0, signed=True), "widths and length must be at least 1, not 0"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message
    assert formats.get("int8").bits == 8
