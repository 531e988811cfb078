"""Sums in floating point, against numpy's scalar arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats.arithmetic.accumulator import ORDERS, TYPES, Accumulator
from formats.arithmetic.floating import PATHS
from formats.arithmetic.matmul import matmul
from tests.formats.arithmetic import dot_oracle as oracle

NAMES = (
    *("int4", "int8", "int16", "uint16", "e4m3", "e10m5", "float8_e5m2", "float8_e8m0fnu", "float16", "bfloat16"),
    *("post4", "post9", "ulogsqrt2_4", "nf4", "binary", "ternary"),
)
names = st.sampled_from(NAMES)


def assert_same(found, expected):
    np.testing.assert_array_equal(found, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))


def codes(rng, name, shape, among):
    fmt = formats.scalar(name)
    every = np.setdiff1d(np.arange(2**fmt.bits), list(fmt.unused))
    values = fmt.values[every]
    if among != "all":
        every, values = every[np.isfinite(values)], values[np.isfinite(values)]
    if among == "small":
        every = every[np.abs(values) <= np.median(np.abs(values))]
    return rng.choice(every, shape).astype(fmt.code_dtype)


@settings(max_examples=80, deadline=None)
@given(
    names,
    names,
    st.integers(0, 33),
    st.integers(0, 2**32),
    st.sampled_from(["all", "finite", "small"]),
    st.sampled_from(TYPES),
    st.sampled_from(ORDERS),
)
def test_every_product_and_every_sum_is_rounded_once(a_name, w_name, depth, seed, among, name, order):
    rng = np.random.default_rng(seed)
    a, w = codes(rng, a_name, (3, depth), among), codes(rng, w_name, (depth, 2), among)
    expected = oracle.floating(a, a_name, w, w_name, name, order)
    for path in (None, *PATHS):
        try:
            result = matmul(a, a_name, w, w_name, Accumulator.floating(name, order), path=path)
        except ValueError as refused:
            assert path is not None
            assert "must be proved exact" in str(refused)  # noqa: PT017
            continue
        assert path in (None, result.path)
        assert_same(result.to_float(), expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", TYPES)
def test_long_sums(name, order):
    rng = np.random.default_rng(2)
    a, w = codes(rng, "float16", (1, 2500), "small"), codes(rng, "e4m3", (2500, 2), "finite")
    expected = oracle.floating(a, "float16", w, "e4m3", name, order)
    for path in PATHS:
        assert_same(matmul(a, "float16", w, "e4m3", Accumulator.floating(name, order), path=path).to_float(), expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("a_name", "w_name"), [("float8_e5m2", "float8_e5m2"), ("int8", "e4m3"), ("post4", "post4")])
def test_products_of_all_pairs_of_codes(a_name, w_name, name):
    """Of one product a tree of adders makes the product itself, the sign of a zero included."""
    a, w = (np.setdiff1d(np.arange(2 ** formats.scalar(n).bits), list(formats.scalar(n).unused)) for n in (a_name, w_name))
    found = matmul(a[:, np.newaxis], a_name, w[np.newaxis], w_name, Accumulator.floating(name, "pairwise")).to_float()
    rng = np.random.default_rng(0)
    for i, j in zip(rng.integers(0, len(a), 300), rng.integers(0, len(w), 300), strict=True):
        product = oracle.product_in(name, formats.scalar(a_name), int(a[i]), formats.scalar(w_name), int(w[j]))
        assert_same(found[i, j][np.newaxis], np.float64([product]))


def test_float16_overflows_to_infinity_and_float32_does_not():
    a = np.full((1, 5), 127, np.uint8)
    w = np.full((5, 1), 127, np.uint8)
    assert matmul(a, "int8", w, "int8", Accumulator.floating("float16")).to_float() == np.inf
    assert matmul(a[:, :4], "int8", w[:4], "int8", Accumulator.floating("float16")).to_float() == 64512
    assert matmul(a, "int8", w, "int8", Accumulator.floating("float32")).to_float() == 80645
    minus = np.full((5, 1), 129, np.uint8)
    assert matmul(a, "int8", minus, "int8", Accumulator.floating("float16")).to_float() == -np.inf


def test_the_order_matters():
    a = np.uint16([[0x6C00, 0x3C00, 0x3C00, 0x3C00]])  # 4096 and ones, in float16: 4096 + 1 is a tie, and rounds down
    w = np.full((4, 1), 0x3C00, np.uint16)
    assert matmul(a, "float16", w, "float16", Accumulator.floating("float16")).to_float() == 4096
    assert matmul(a, "float16", w, "float16", Accumulator.floating("float16", "pairwise")).to_float() == 4096
    assert matmul(a[:, ::-1], "float16", w, "float16", Accumulator.floating("float16")).to_float() == 4100
    assert matmul(a[:, ::-1], "float16", w, "float16", Accumulator.floating("float16", "pairwise")).to_float() == 4096


def test_the_last_without_a_partner_passes_up_unchanged():
    big, one = 0x6C00, 0x3C00
    w = np.full((5, 1), one, np.uint16)
    for codes_, tree in (
        ([big, one, one, one, one], lambda x: ((x[0] + x[1]) + (x[2] + x[3])) + x[4]),
        ([one, one, big], lambda x: (x[0] + x[1]) + x[2]),
        ([one, one, one, one, big], lambda x: ((x[0] + x[1]) + (x[2] + x[3])) + x[4]),
    ):
        a = np.uint16([codes_])
        values = [np.float16(v) for v in formats.scalar("float16").values[a[0]]]
        found = matmul(a, "float16", w[: len(codes_)], "float16", Accumulator.floating("float16", "pairwise")).to_float()
        assert found == float(tree(values))


def test_subnormal_numbers_are_kept():
    tiny = np.uint16([[1]])
    one = np.uint16([[0x3C00]])
    assert matmul(tiny, "float16", one, "float16", Accumulator.floating("float16")).to_float() == 2.0**-24
    smallest = np.uint16([[1]])
    unit = np.uint16([[0x3F80]])
    for name in ("float32", "bfloat16"):
        assert matmul(smallest, "bfloat16", unit, "bfloat16", Accumulator.floating(name)).to_float() == 2.0**-133


def test_nan_and_infinity_propagate():
    inf, minus, nan, one, zero = 0x7C, 0xFC, 0x7E, 0x3C, 0x00
    row = lambda *c: np.uint8([c])  # noqa: E731
    column = np.uint8([[one], [one]])
    for name in TYPES:
        for order in ORDERS:
            chosen = Accumulator.floating(name, order)
            total = lambda *c, w=column, chosen=chosen: matmul(row(*c), "float8_e5m2", w, "float8_e5m2", chosen).to_float().item()  # noqa: E731
            assert total(inf, one) == np.inf
            assert total(minus, one) == -np.inf
            assert np.isnan(total(inf, minus))
            assert np.isnan(total(nan, one))
            assert np.isnan(total(inf, one, w=np.uint8([[zero], [one]])))


def test_sums_in_floating_point_have_no_lsb():
    result = matmul(np.uint8([[1]]), "int8", np.uint8([[1]]), "int8", Accumulator.floating())
    with pytest.raises(ValueError, match=r"^accumulator must be exact or fixed for whole numbers, not float32$"):
        result.to_integers()
    with pytest.raises(ValueError, match=r"^accumulator must be exact or fixed for an LSB of its own, not float32$"):
        _ = result.lsb_exponent


def test_a_product_that_would_round_twice_is_not_formed_in_float32():
    a = w = np.uint16([[0x7FFF]])
    with pytest.raises(ValueError, match=r"taken for products that float32 does not hold, and that would be rounded twice$"):
        matmul(a, "int16", w, "int16", Accumulator.floating("bfloat16"), path="products-float32")
    with pytest.raises(ValueError, match=r"taken for a factor of the square root of two: it holds rational numbers$"):
        matmul(np.uint8([[6]]), "post4", np.uint8([[6]]), "post4", Accumulator.floating(), path="products-float32")
