"""Exact and fixed-width products, on every path, against plain Python integers."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats.arithmetic import fixed
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.exact import PATHS as EXACT_PATHS
from formats.arithmetic.matmul import PATHS, matmul
from tests.formats.arithmetic import dot_oracle as oracle

NAMES = (
    *("int2", "int8", "int8_narrow", "int16", "uint1", "uint8", "uint16", "e2m1", "e4m3", "ue5m3", "e10m5"),
    *("float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu", "float16", "bfloat16", "pot4", "post4", "post9"),
    *("ulog2_4", "ulogsqrt2_4", "ternary", "binary", "nf4"),
)
names = st.sampled_from(NAMES)
sizes = st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 5))


def operands(a_name, w_name, size, seed, narrow=False):
    """Random codes of finite numbers, on request of the smaller ones only."""
    rng = np.random.default_rng(seed)
    rows, depth, columns = size
    made = []
    for name, shape in ((a_name, (rows, depth)), (w_name, (depth, columns))):
        codes = oracle.usable(name)
        if narrow:
            magnitude = np.abs(formats.scalar(name).values[codes])
            codes = codes[magnitude <= np.quantile(magnitude, 0.6)]
        made.append(rng.choice(codes, shape).astype(formats.scalar(name).code_dtype))
    return made


def integers(result):
    """Even and odd sums of a result, zero where there are no odd ones."""
    content = result.to_integers()
    return content if isinstance(content, tuple) else (content, np.zeros_like(content))


def assert_registers(result, expected):
    for found, wanted in zip(integers(result), expected, strict=True):
        np.testing.assert_array_equal(found.astype(object), wanted)


@settings(max_examples=60, deadline=None)
@given(names, names, sizes, st.integers(0, 2**32), st.booleans())
def test_exact_sums_on_every_path(a_name, w_name, size, seed, narrow):
    a, w = operands(a_name, w_name, size, seed, narrow)
    expected = oracle.matrix(a, a_name, w, w_name)
    result = matmul(a, a_name, w, w_name)
    assert_registers(result, expected)
    assert result.shape == expected[0].shape
    assert result.lsb_exponent == oracle.lsb_exponent(a_name) + oracle.lsb_exponent(w_name)
    unit = oracle.Fraction(2) ** result.lsb_exponent
    values = [oracle.nearest((int(e) * unit, int(o) * unit)) for e, o in zip(expected[0].flat, expected[1].flat, strict=True)]
    np.testing.assert_array_equal(result.to_float().ravel(), values)
    for path in EXACT_PATHS:
        try:
            forced = matmul(a, a_name, w, w_name, path=path)
        except ValueError as refused:
            assert f"path {path} must be proved exact for these operands, not taken" in str(refused)  # noqa: PT017
            continue
        assert forced.path == path
        assert_registers(forced, expected)
        np.testing.assert_array_equal(forced.to_float(), result.to_float())


@settings(max_examples=80, deadline=None)
@given(
    names,
    names,
    sizes,
    st.integers(0, 2**32),
    st.one_of(st.integers(2, 34), st.integers(50, 70), st.just(300)),
    st.sampled_from(["saturate", "wrap"]),
)
def test_fixed_registers_on_every_path(a_name, w_name, size, seed, bits, overflow):
    a, w = operands(a_name, w_name, size, seed)
    keep = oracle.saturating(bits) if overflow == "saturate" else oracle.wrapping(bits)
    expected = oracle.matrix(a, a_name, w, w_name, keep)
    accumulator = Accumulator.fixed(bits, overflow)
    result = matmul(a, a_name, w, w_name, accumulator)
    assert_registers(result, expected)
    for path in (*EXACT_PATHS, *fixed.PATHS):
        try:
            forced = matmul(a, a_name, w, w_name, accumulator, path=path)
        except ValueError:
            continue
        assert forced.path == path
        assert_registers(forced, expected)


@pytest.mark.parametrize(
    ("a_name", "w_name"),
    [
        ("int8", "int8"),
        ("uint8", "e4m3"),
        ("float8_e5m2", "float8_e5m2"),
        ("post4", "ulogsqrt2_4"),
        ("nf4", "pot4"),
        ("binary", "e6m5"),
    ],
)
def test_products_of_all_pairs_of_codes(a_name, w_name):
    a, w = (oracle.usable(name).astype(formats.scalar(name).code_dtype) for name in (a_name, w_name))
    result = matmul(a[:, np.newaxis], a_name, w[np.newaxis], w_name)
    (a_even, a_odd), (w_even, w_odd) = whole_numbers(a, a_name), whole_numbers(w, w_name)
    expected = np.outer(a_even, w_even) + 2 * np.outer(a_odd, w_odd), np.outer(a_even, w_odd) + np.outer(a_odd, w_even)
    assert_registers(result, expected)
    unit = oracle.Fraction(2) ** result.lsb_exponent
    rng = np.random.default_rng(0)
    for i, j in zip(rng.integers(0, len(a), 100), rng.integers(0, len(w), 100), strict=True):
        even, odd = (int(part[i, j]) * unit for part in expected)
        assert result.to_float()[i, j] == oracle.nearest((even, odd))


def whole_numbers(codes, name):
    """Even and odd parts of codes in units of their format's LSB."""
    unit = oracle.Fraction(2) ** oracle.lsb_exponent(name)
    parts = [[oracle.numbers(name)[code][part] / unit for code in codes] for part in (0, 1)]
    assert all(number.denominator == 1 for part in parts for number in part)
    return [np.array([int(number) for number in part], object) for part in parts]


# ---- wide sums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float8_e5m2", "float16", "bfloat16", "e10m5", "post9"])
def test_wide_sums_keep_the_smallest_product_beside_the_largest(name):
    fmt = formats.scalar(name)
    finite = oracle.usable(name)
    magnitude = np.abs(fmt.values[finite])
    largest = finite[magnitude.argmax()]
    smallest = finite[np.where(magnitude > 0, magnitude, np.inf).argmin()]
    a = np.array([[largest, smallest, largest]], fmt.code_dtype)
    opposite = largest ^ (1 << (fmt.bits - 1))  # the sign is the top bit of all of these
    w = np.array([[largest], [smallest], [opposite]], fmt.code_dtype)
    result = matmul(a, name, w, name)
    exact = oracle.nearest(oracle.times(oracle.numbers(name)[smallest], oracle.numbers(name)[smallest]))
    assert result.to_float() == exact
    assert result.to_float() != 0
    assert matmul(a[:, :2], name, w[:2], name).to_float() == oracle.nearest(
        oracle.times(oracle.numbers(name)[largest], oracle.numbers(name)[largest])
    )


def test_sums_beyond_64_bits_come_as_python_integers():
    a = np.full((1, 9), 0x7C00 - 1, np.uint16)  # the largest of float16, 2047 * 2**29 in units of its LSB
    result = matmul(a, "float16", a.T, "float16")
    assert result.to_integers().dtype == object
    assert result.to_integers()[0, 0] == 9 * (2047 << 29) ** 2
    assert result.to_float()[0, 0] == 9 * 65504.0**2
    assert matmul(a[:, :1], "float16", a.T[:1] * 0 + 1, "float16").to_integers().dtype == np.int64


def test_sums_beyond_float64_are_infinite():
    a = np.full((1, 300), 0x7FFF, np.uint16)
    assert formats.scalar("e10m5").maximum > 2.0**512
    result = matmul(a, "e10m5", np.uint16([[0x7FFF, 0xFFFF]] * 300), "e10m5")
    np.testing.assert_array_equal(result.to_float(), [[np.inf, -np.inf]])


# ---- order and saturation --------------------------------------------------------------------------------------------


def test_saturation_depends_on_the_order():
    a = np.uint8([[100, 100, 100, 156]])  # 156 is -100
    w = np.full((4, 1), 2, np.uint8)
    saturate = Accumulator.fixed(9)
    assert matmul(a, "int8", w, "int8", saturate).to_integers().item() == 255 - 200
    assert matmul(a[:, ::-1], "int8", w, "int8", saturate).to_integers().item() == 255
    assert matmul(a, "int8", w, "int8").to_integers().item() == 400


def test_a_product_wider_than_the_register_is_not_clipped_first():
    a, w = np.uint8([[127, 127]]), np.uint8([[129], [127]])  # -16129, then +16129, in a register of [-8192, 8191]
    for path in fixed.PATHS:
        found = matmul(a, "int8", w, "int8", Accumulator.fixed(14), path=path)
        assert found.to_integers().item() == min(-8192 + 16129, 8191) == 7937


@pytest.mark.parametrize("bits", [14, 16, 20])
def test_long_sums_in_narrow_registers(bits):
    """The shape on which apytypes 0.5.1 gives unsaturated or wrapped sums."""
    rng = np.random.default_rng(bits)
    a, w = rng.integers(0, 256, (2, 1000)).astype(np.uint8), rng.integers(0, 256, (1000, 3)).astype(np.uint8)
    w[:, 0] = a[0]  # a sum of squares reaches any limit
    expected = oracle.matrix(a, "int8", w, "int8", oracle.saturating(bits))[0]
    assert (expected != oracle.matrix(a, "int8", w, "int8")[0]).any()
    for path in (None, *fixed.PATHS):
        np.testing.assert_array_equal(matmul(a, "int8", w, "int8", Accumulator.fixed(bits), path=path).to_integers(), expected)


@pytest.mark.parametrize("bits", [14, 20, 30])
def test_odd_sizes_of_larger_products_in_registers(bits):
    rng = np.random.default_rng(1)
    a, w = rng.integers(0, 256, (301, 259)).astype(np.uint8), rng.integers(0, 256, (259, 515)).astype(np.uint8)
    numbers = a.view(np.int8).astype(np.int64), w.view(np.int8).astype(np.int64)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    expected = np.zeros((301, 515), np.int64)
    for k in range(259):
        expected = np.clip(expected + np.outer(numbers[0][:, k], numbers[1][k]), low, high)
    for path in (None, "ordered-int32", "ordered-int64"):
        np.testing.assert_array_equal(matmul(a, "int8", w, "int8", Accumulator.fixed(bits), path=path).to_integers(), expected)


def test_a_register_that_cannot_overflow_takes_the_exact_path():
    a = np.full((1, 4), 127, np.uint8)
    w = np.full((4, 1), 1, np.uint8)
    assert matmul(a, "int8", w, "int8", Accumulator.fixed(10)).path in EXACT_PATHS  # 508 of at most 511
    assert matmul(a, "int8", w, "int8", Accumulator.fixed(9)).path == "ordered-float32"
    assert matmul(a, "int8", w, "int8", Accumulator.fixed(9, "wrap")).path in EXACT_PATHS
    with pytest.raises(
        ValueError, match=r"^path integer must be proved exact .*, not taken where sums may reach the limits of fixed:9$"
    ):
        matmul(a, "int8", w, "int8", Accumulator.fixed(9), path="integer")


# ---- the square root of two ------------------------------------------------------------------------------------------


def test_even_and_odd_powers_of_the_root_are_summed_apart():
    fmt = formats.scalar("post4")
    codes = {value: code for code, value in enumerate(fmt.values)}
    half, root_half = codes[0.5], fmt.encode(np.float32(np.sqrt(0.5)))
    a, w = np.uint8([[half, root_half, half]]), np.uint8([[half], [root_half], [root_half]])
    even, odd = matmul(a, "post4", w, "post4").to_integers()
    assert (even.item(), odd.item()) == (16 + 32, 16)  # 1/4 + 1/2 + sqrt(2)/4 in units of 2**-6


def test_cancellation_of_even_and_odd_parts():
    """1393**2 is 2 * 985**2 - 1: 985 * sqrt(2) - 1393 is about 2**-11.4, and a sum in float64 would lose the rest of it."""
    one, root, minus_one = 7, 6, 15  # 1, sqrt(1/2) and -1 in post4
    a, w = np.uint8([[one] * 985 * 2 + [minus_one] * 1393]), np.uint8([[root]] * 985 * 2 + [[one]] * 1393)
    found = matmul(a, "post4", w, "post4").to_float().item()
    assert found == oracle.nearest((oracle.Fraction(-1393), oracle.Fraction(985)))
    assert found != 985 * np.sqrt(2) - 1393


def test_a_format_with_the_root_saturates_its_registers_separately():
    a, w = np.uint8([[7, 6] * 8]), np.full((16, 1), 7, np.uint8)  # 1 and sqrt(1/2), times 1
    unit = 2**6
    even, odd = matmul(a, "post4", w, "post4", Accumulator.fixed(8)).to_integers()
    assert (even.item(), odd.item()) == (127, 127)
    even, odd = matmul(a, "post4", w, "post4", Accumulator.fixed(10)).to_integers()
    assert (even.item(), odd.item()) == (511, 8 * unit // 2)


# ---- paths -----------------------------------------------------------------------------------------------------------


def random_codes(rng, name, shape):
    return rng.choice(oracle.usable(name), shape).astype(formats.scalar(name).code_dtype)


@pytest.mark.parametrize(
    ("a_name", "w_name", "path"),
    [
        ("int8", "int8", "int8"),
        ("uint8", "int8", "int8"),
        ("uint8", "uint8", "int8"),
        ("e2m1", "ternary", "int8"),
        ("int8", "e2m3", "int8"),
        ("e3m2", "e2m1", "float32"),
        ("e3m2", "e3m2", "float32"),
        ("e4m3", "int8", "float64"),
        ("int16", "int8", "float64"),
        ("int16", "int16", "float64"),
        ("e4m3", "e4m3", "float64"),
        ("float8_e5m2", "float8_e5m2", "bands"),
        ("bfloat16", "e2m1", "bands"),
        ("post4", "post4", "int8"),
    ],
)
def test_paths_of_larger_products_agree(a_name, w_name, path):
    assert "torch" in sys.modules
    rng = np.random.default_rng(3)
    a, w = random_codes(rng, a_name, (70, 300)), random_codes(rng, w_name, (300, 90))
    result = matmul(a, a_name, w, w_name)
    assert result.path == path
    expected = integers(result)
    rows, columns = rng.integers(0, 70, 3), rng.integers(0, 90, 3)
    by_hand = oracle.matrix(a[rows], a_name, w[:, columns], w_name)
    for found, wanted in zip(expected, by_hand, strict=True):
        np.testing.assert_array_equal(found[np.ix_(rows, columns)].astype(object), wanted)
    agreed = 0
    for other in EXACT_PATHS:
        try:
            assert_registers(matmul(a, a_name, w, w_name, path=other), expected)
        except ValueError:
            continue
        agreed += 1
    assert agreed >= 1


def test_sums_of_many_products_are_cut_into_slices():
    rng = np.random.default_rng(5)
    a, w = random_codes(rng, "int8", (3, 140000)), np.full((140000, 2), 128, np.uint8)
    a[0] = 128
    expected = a.view(np.int8).astype(np.int64) @ np.full((140000, 2), -128)
    for path in ("int8", "float32", "float64", "bands", "integer", None):
        result = matmul(a, "int8", w, "int8", path=path)
        np.testing.assert_array_equal(result.to_integers(), expected)
    assert expected[0, 0] == 140000 * 2**14 > 2**31


@pytest.mark.parametrize(
    ("path", "a_name", "w_name", "reason"),
    [
        ("float32", "int16", "int16", "taken for products of 31 bits: it holds 24"),
        ("float64", "float16", "float16", "taken for sums of 81 bits: its sums are int64"),
        ("integer", "float16", "float16", "taken for sums of 81 bits: its sums are int64"),
        ("int8", "int16", "int8", "taken for numbers from -32768 to 32768: it multiplies 8-bit integers"),
    ],
)
def test_a_path_that_is_not_proved_exact_is_refused(path, a_name, w_name, reason):
    ends = {"int8": (0x80, 0x7F), "int16": (0x8000, 0x7FFF), "float16": (0x0001, 0x7BFF)}
    a, w = np.uint16([ends[a_name]]), np.uint16([[code] for code in ends[w_name]])
    with pytest.raises(ValueError, match=r"^path \w+ must be proved exact for these operands, not ") as caught:
        matmul(a, a_name, w, w_name, path=path)
    assert str(caught.value).endswith(reason)


def test_torch_is_used_only_where_the_caller_has_imported_it(monkeypatch):
    a = np.ones((64, 64), np.uint8)
    assert matmul(a, "int8", a, "int8").path == "int8"
    monkeypatch.delitem(sys.modules, "torch")
    assert matmul(a, "int8", a, "int8").path == "float32"
    with pytest.raises(ValueError, match=r"taken without torch: it must have been imported by the caller$"):
        matmul(a, "int8", a, "int8", path="int8")
    monkeypatch.setitem(sys.modules, "torch", torch)


@pytest.mark.parametrize("accumulator", ["exact", "fixed:18", "fixed:18:wrap", "float32", "float16:pairwise"])
def test_threads_and_layout_change_nothing(accumulator):
    rng = np.random.default_rng(6)
    a, w = random_codes(rng, "int8", (130, 120)), random_codes(rng, "e4m3", (120, 140))
    chosen = Accumulator.parse(accumulator)
    before = formats.thread_count()
    try:
        formats.set_thread_count(1)
        expected = matmul(a, "int8", w, "e4m3", chosen).to_float()
        formats.set_thread_count(3)
        np.testing.assert_array_equal(matmul(a, "int8", w, "e4m3", chosen).to_float(), expected)
    finally:
        formats.set_thread_count(before)
    strided = np.repeat(a, 2, axis=1)[:, ::2], np.asfortranarray(w)
    np.testing.assert_array_equal(matmul(strided[0], "int8", strided[1], "e4m3", chosen).to_float(), expected)
    wide = a.astype(np.int64), w.astype(np.int16)
    np.testing.assert_array_equal(matmul(wide[0], formats.get("int8"), wide[1], "e4m3", chosen).to_float(), expected)


# ---- what is refused -------------------------------------------------------------------------------------------------

ONE = np.zeros((1, 1), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: matmul(ONE[0], "int8", ONE, "int8"), ValueError, "codes of a must have 2 axes (M, K), not the shape (1,)"),
        (lambda: matmul(ONE, "int8", ONE[0], "int8"), ValueError, "codes of w must have 2 axes (K, N), not the shape (1,)"),
        (
            lambda: matmul(ONE, "int8", np.zeros((2, 1), np.uint8), "int8"),
            ValueError,
            "codes of a and w must agree in K, not have 1 and 2",
        ),
        (lambda: matmul(ONE * 1.0, "int8", ONE, "int8"), TypeError, "codes of a (int8) must be integers, not float64"),
        (lambda: matmul(ONE, "int8", ONE == 0, "int8"), TypeError, "codes of w (int8) must be integers, not bool"),
        (lambda: matmul(ONE + 16, "e2m1", ONE, "int8"), ValueError, "codes of a (e2m1) must be 0 to 15, not 16"),
        (lambda: matmul(ONE, "int8", ONE.astype(int) - 1, "int8"), ValueError, "codes of w (int8) must be 0 to 255, not -1"),
        (lambda: matmul(ONE, "int8", ONE, "int8", "exact"), TypeError, "accumulator must be an Accumulator, not str"),
        (
            lambda: matmul(ONE + 2, "ternary", ONE, "int8"),
            ValueError,
            "codes of a (ternary) must be used ones, not unused ones in 1 elements",
        ),
        (
            lambda: matmul(ONE + 2, "ternary", ONE, "int8", Accumulator.floating()),
            ValueError,
            "codes of a (ternary) must be used ones, not unused ones in 1 elements",
        ),
        (
            lambda: matmul(ONE, "int8", np.uint8([[0x7C, 0xFD, 0]]), "float8_e5m2"),
            ValueError,
            "codes of w (float8_e5m2) must be finite numbers, not NaN or Inf in 2 elements",
        ),
        (
            lambda: matmul(np.uint16([[0x7C00]]), "float16", ONE, "int8", Accumulator.fixed(20)),
            ValueError,
            "codes of a (float16) must be finite numbers, not NaN or Inf in 1 elements",
        ),
        (
            lambda: matmul(ONE, "int8", ONE, "int8", path="integers"),
            KeyError,
            "path must be a known name, not 'integers'; nearest: integer",
        ),
        (
            lambda: matmul(ONE, "int8", ONE, "int8", path="ordered-int32"),
            ValueError,
            "path of the accumulator exact must be one of int8, float32, float64, bands, integer, not ordered-int32",
        ),
        (lambda: matmul(ONE, "int9x", ONE, "int8"), KeyError, "format must be a known name, not 'int9x'; nearest: "),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("size", [(0, 3, 2), (2, 0, 3), (2, 3, 0), (0, 0, 0)])
@pytest.mark.parametrize("accumulator", ["exact", "fixed:4", "fixed:70", "fixed:5:wrap", "float32", "bfloat16:pairwise"])
def test_empty_products(size, accumulator):
    rows, depth, columns = size
    for name in ("int8", "post4"):
        a, w = np.zeros((rows, depth), np.uint8), np.zeros((depth, columns), np.uint8)
        result = matmul(a, name, w, "e4m3", Accumulator.parse(accumulator))
        assert result.shape == result.to_float().shape == (rows, columns)
        assert (result.to_float() == 0).all()
        assert not np.signbit(result.to_float()).any()
        assert result.path in PATHS
