"""Convolutions, against torch in float64 where sums are whole numbers, and against windows written out where order matters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats.arithmetic import convolution
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.convolution import convolve2d
from formats.arithmetic.matmul import matmul
from tests.formats.arithmetic import dot_oracle as oracle

ACCUMULATORS = ("exact", "fixed:10", "fixed:9:wrap", "fixed:70", "float32", "float16", "bfloat16:pairwise")
ONE_OR_TWO = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 2)))


def codes(rng, name, shape):
    return rng.choice(oracle.usable(name), shape).astype(formats.scalar(name).code_dtype)


def both(value):
    return value if isinstance(value, tuple) else (value, value)


def by_matmul(a, a_name, w, w_name, accumulator, stride, padding, dilation, groups, zero):
    """One output position at a time: its window as a row of k = (c, kh, kw), padding as the code ``zero``."""
    (sh, sw), (ph, pw), (dh, dw) = both(stride), both(padding), both(dilation)
    padded = np.pad(a, [(0, 0), (0, 0), (ph, ph), (pw, pw)], constant_values=zero)
    n, c, height, width = padded.shape
    o, _, kh, kw = w.shape
    size = (height - dh * (kh - 1) - 1) // sh + 1, (width - dw * (kw - 1) - 1) // sw + 1
    content, shape = {}, (n, o, *size)
    for g in range(groups):
        channels, outputs = slice(g * c // groups, (g + 1) * c // groups), slice(g * o // groups, (g + 1) * o // groups)
        weight = w[outputs].reshape(o // groups, -1).T
        for y, x in np.ndindex(*size):
            window = padded[:, channels, y * sh : y * sh + dh * (kh - 1) + 1 : dh, x * sw : x * sw + dw * (kw - 1) + 1 : dw]
            content[g, y, x] = matmul(window.reshape(n, -1), a_name, weight, w_name, accumulator).to_float()
    out = np.zeros(shape)
    for (g, y, x), found in content.items():
        out[:, g * o // groups : (g + 1) * o // groups, y, x] = found
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int8", "e4m3", "post4", "float16"]),
    st.sampled_from(["int4", "e2m1", "post4"]),
    st.sampled_from(ACCUMULATORS),
    ONE_OR_TWO,
    st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 1))),
    ONE_OR_TWO,
    st.sampled_from([1, 2, 4]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2**32),
)
def test_every_window_is_a_row_of_a_matrix_product(a_name, w_name, accumulator, stride, padding, dilation, groups, kernel, seed):
    rng = np.random.default_rng(seed)
    a, w = codes(rng, a_name, (2, 4, 8, 7)), codes(rng, w_name, (4, 4 // groups, *kernel))
    chosen = Accumulator.parse(accumulator)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    result = convolve2d(a, a_name, w, w_name, chosen, **options)
    expected = by_matmul(a, a_name, w, w_name, chosen, stride, padding, dilation, groups, zero=0)
    assert result.shape == expected.shape
    np.testing.assert_array_equal(result.to_float(), expected)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_torch_agrees_on_whole_numbers(groups):
    rng = np.random.default_rng(groups)
    a, w = codes(rng, "int8", (3, 6, 11, 9)), codes(rng, "int4", (6, 6 // groups, 3, 2))
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": groups}
    floats = (torch.from_numpy(formats.get(n).decode(x)).double() for n, x in (("int8", a), ("int4", w)))
    expected = torch.nn.functional.conv2d(*floats, **options).numpy()
    result = convolve2d(a, "int8", w, "int4", **options)
    np.testing.assert_array_equal(result.to_integers(), expected)
    assert result.to_integers().dtype == np.int64
    for path in ("float32", "float64", "bands", "integer"):
        np.testing.assert_array_equal(convolve2d(a, "int8", w, "int4", path=path, **options).to_integers(), expected)


@pytest.mark.parametrize("accumulator", ["exact", "float32", "float16:pairwise"])
@pytest.mark.parametrize(("name", "first"), [("binary", 0), ("float8_e8m0fnu", 127)])
def test_padding_is_zero_also_for_formats_without_a_zero(name, first, accumulator):
    rng = np.random.default_rng(0)
    a, w = rng.integers(first, first + 2, (1, 2, 4, 4)).astype(np.uint8), np.ones((1, 2, 3, 3), np.uint8)
    values = torch.from_numpy(formats.get(name).decode(a)).double()
    expected = torch.nn.functional.conv2d(values, torch.ones(1, 2, 3, 3, dtype=torch.float64), padding=1).numpy()
    result = convolve2d(a, name, w, "binary", Accumulator.parse(accumulator), padding=1)
    np.testing.assert_array_equal(result.to_float(), expected)


def test_a_window_of_padding_alone_is_zero():
    a, w = np.ones((1, 1, 1, 1), np.uint8), np.zeros((1, 1, 1, 1), np.uint8)
    result = convolve2d(a, "binary", w, "binary", padding=2)
    expected = np.zeros((1, 1, 5, 5))
    expected[0, 0, 2, 2] = -1
    np.testing.assert_array_equal(result.to_integers(), expected)


@pytest.mark.parametrize("limit", [1, 300, 5000])
@pytest.mark.parametrize("accumulator", ["exact", "fixed:9", "float16"])
def test_the_number_of_windows_at_a_time_changes_nothing(monkeypatch, accumulator, limit):
    rng = np.random.default_rng(9)
    a, w = codes(rng, "int8", (5, 4, 9, 9)), codes(rng, "float16" if accumulator == "exact" else "e2m1", (6, 2, 3, 3))
    names = "int8", "float16" if accumulator == "exact" else "e2m1"
    options = {"padding": 1, "stride": 2, "groups": 2}
    expected = convolve2d(a, names[0], w, names[1], Accumulator.parse(accumulator), **options)
    monkeypatch.setattr(convolution, "WINDOW_CODES", limit)
    found = convolve2d(a, names[0], w, names[1], Accumulator.parse(accumulator), **options)
    np.testing.assert_array_equal(found.to_float(), expected.to_float())


def test_k_runs_over_channels_then_rows_then_columns():
    """Registers of 4 bits saturate in this order: +7 (of 9), then -8 (of -9), then +1."""
    a = np.uint8([9, 0, 0, 0, 256 - 18, 0, 0, 9]).reshape(1, 2, 2, 2)
    w = np.ones((1, 2, 2, 2), np.uint8)
    assert convolve2d(a, "int8", w, "int8", Accumulator.fixed(4)).to_integers().item() == min(-8 + 9, 7)
    assert convolve2d(a[:, ::-1], "int8", w, "int8", Accumulator.fixed(4)).to_integers().item() == 7


def test_no_images():
    result = convolve2d(np.zeros((0, 2, 5, 5), np.uint8), "int8", np.zeros((3, 2, 3, 3), np.uint8), "int8")
    assert result.shape == result.to_float().shape == (0, 3, 3, 3)
    none = convolve2d(np.zeros((2, 0, 5, 5), np.uint8), "int8", np.zeros((3, 0, 3, 3), np.uint8), "int8")
    np.testing.assert_array_equal(none.to_float(), np.zeros((2, 3, 3, 3)))


A, W = np.zeros((1, 4, 5, 5), np.uint8), np.zeros((6, 4, 3, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: convolve2d(A[0], "int8", W, "int8"),
            ValueError,
            "codes of a must have 4 axes (N, C, H, W), not the shape (4, 5, 5)",
        ),
        (
            lambda: convolve2d(A, "int8", W[0], "int8"),
            ValueError,
            "codes of w must have 4 axes (O, C / groups, kh, kw), not the shape (4, 3, 3)",
        ),
        (lambda: convolve2d(A, "int8", W[:, :2], "int8"), ValueError, "codes of w must have 4 channels (C / groups), not 2"),
        (
            lambda: convolve2d(A, "int8", W, "int8", groups=4),
            ValueError,
            "groups must divide the 4 channels and the 6 outputs, not 4",
        ),
        (
            lambda: convolve2d(A, "int8", W, "int8", groups=0),
            ValueError,
            "groups must divide the 4 channels and the 6 outputs, not 0",
        ),
        (lambda: convolve2d(A, "int8", W, "int8", stride=0), ValueError, "stride must be at least 1, not 0"),
        (lambda: convolve2d(A, "int8", W, "int8", padding=(0, -1)), ValueError, "padding must be at least 0, not -1"),
        (
            lambda: convolve2d(A, "int8", W, "int8", dilation=(1, 1, 1)),
            ValueError,
            "dilation must be a number or a pair of them, not 3 numbers",
        ),
        (
            lambda: convolve2d(A, "int8", W, "int8", stride=1.5),
            TypeError,
            "stride must be a whole number or a pair of them, not float",
        ),
        (
            lambda: convolve2d(A, "int8", W, "int8", dilation=3),
            ValueError,
            "kernel must fit into the padded image of 5 x 5, not 7 x 7",
        ),
        (lambda: convolve2d(A, "int8", W[..., :0], "int8"), ValueError, "kernel must be at least 1 x 1, not 3 x 0"),
        (
            lambda: convolve2d(A, "mxfp4", W, "int8"),
            ValueError,
            "format must be one whose codes stand alone here, not the block format mxfp4",
        ),
        (lambda: convolve2d(A, "int8", W, "int8", "exact"), TypeError, "accumulator must be an Accumulator, not str"),
        (
            lambda: convolve2d(A, "int8", W + 2, "ternary"),
            ValueError,
            "codes of w (ternary) must be used ones, not unused ones in 216 elements",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
