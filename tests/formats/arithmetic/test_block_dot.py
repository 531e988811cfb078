"""Products of block formats, segment by segment in fractions and numpy's float32."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import formats
from formats import BlockFormat
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.block_dot import PATHS
from formats.arithmetic.matmul import matmul
from formats.block import BlockScales
from tests.formats.arithmetic import dot_oracle as oracle

BLOCKS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4", "mxint8", "nvfp4")
SCALARS = ("int8", "int16", "e4m3", "float16", "bfloat16", "post4", "binary")


class Operand:
    """An encoded matrix, and the exact value of its elements and scales; ``k`` counts along ``axis``."""

    def __init__(self, name, x, axis):
        self.format = formats.get(name)
        self.blocked = isinstance(self.format, BlockFormat)
        self.axis = axis
        if self.blocked:
            self.given = self.format.encode(x, axis=axis)
            codes, self.scales = self.given
            self.element = self.format.element
        else:
            self.given = codes = self.format.encode(x)
            self.element = self.format
        self.codes = codes
        self.block = self.format.block if self.blocked else None

    def at(self, other, k):
        return (other, k) if self.axis == -1 else (k, other)

    def number(self, other, k):
        value = oracle.numbers(self.element.name)[self.codes[self.at(other, k)]]
        unit = Fraction(2) ** (self.format.unit_exponent if self.blocked else 0)
        return value[0] * unit, value[1] * unit

    def scale(self, other, k):
        if not self.blocked:
            return Fraction(1)
        return Fraction(float(self.format.scale_format.values[self.scales.codes[self.at(other, k // self.block)]]))

    @property
    def tensor(self):
        return Fraction(float(self.scales.tensor)) if self.blocked else Fraction(1)


def expected(a, w, shape):
    rows, depth, columns = shape
    out = np.zeros((rows, columns))
    for i, j in np.ndindex(rows, columns):
        total = np.float32(0)
        for start, stop in oracle.segments(depth, a.block, w.block):
            products = [oracle.times(a.number(i, k), w.number(j, k)) for k in range(start, stop)]
            scale = a.scale(i, start) * w.scale(j, start)
            exact = tuple(sum((product[part] for product in products), Fraction(0)) * scale for part in (0, 1))
            with np.errstate(over="ignore", invalid="ignore"):
                total = np.float32(total + np.float32(oracle.nearest(exact, "float32")))
        out[i, j] = oracle.nearest((Fraction(float(total)) * a.tensor * w.tensor, Fraction(0))) if np.isfinite(total) else total
    return out


def random_matrix(rng, shape, spread):
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-spread, spread + 1, shape))
    return x.astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(BLOCKS + SCALARS),
    st.sampled_from(BLOCKS + SCALARS),
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 5, 16, 32, 33, 70]), st.integers(0, 3)),
    st.integers(0, 40),
    st.integers(0, 2**32),
)
def test_segments_are_exact_and_rounded_once(a_name, w_name, shape, spread, seed):
    if a_name in SCALARS and w_name in SCALARS:
        a_name = BLOCKS[seed % len(BLOCKS)]
    rng = np.random.default_rng(seed)
    rows, depth, columns = shape
    a = Operand(a_name, random_matrix(rng, (rows, depth), spread), -1)
    w = Operand(w_name, random_matrix(rng, (depth, columns), spread), 0)
    wanted = expected(a, w, shape)
    for path in (None, *PATHS):
        try:
            result = matmul(a.given, a_name, w.given, w_name, path=path)
        except ValueError as refused:
            assert path is not None
            assert "must be proved exact for these operands, not taken" in str(refused)  # noqa: PT017
            continue
        assert path in (None, result.path)
        assert result.shape == (rows, columns)
        np.testing.assert_array_equal(result.to_float(), wanted)


@pytest.mark.parametrize(
    ("a_name", "w_name"), [("mxfp4", "mxfp4"), ("mxint8", "nvfp4"), ("mxfp8_e5m2", "mxfp8_e5m2"), ("int8", "mxfp6_e2m3")]
)
def test_larger_products_are_tiled_alike(a_name, w_name):
    rng = np.random.default_rng(4)
    a, w = Operand(a_name, random_matrix(rng, (301, 200), 3), -1), Operand(w_name, random_matrix(rng, (200, 513), 3), 0)
    result = matmul(a.given, a_name, w.given, w_name).to_float()
    rows, columns = [0, 150, 300], [0, 255, 512]

    def part(operand, index):
        cut = (lambda x: x[index]) if operand.axis == -1 else (lambda x: x[:, index])
        return (
            (cut(operand.codes), BlockScales(cut(operand.scales.codes), operand.scales.tensor))
            if operand.blocked
            else cut(operand.codes)
        )

    picked = matmul(part(a, rows), a_name, part(w, columns), w_name, path="blocks-wide").to_float()
    np.testing.assert_array_equal(result[np.ix_(rows, columns)], picked)


def test_blocks_of_one_are_added_in_float32_in_order():
    x = np.zeros((1, 96), np.float32)
    x[0, [0, 32, 64]] = 2.0**24, 1, 1
    f = formats.get("mxfp4")
    ones = f.encode(np.ones((96, 1), np.float32), axis=0)
    assert matmul(f.encode(x), "mxfp4", ones, "mxfp4").to_float() == 2.0**24
    assert matmul(f.encode(x[:, ::-1]), "mxfp4", ones, "mxfp4").to_float() == 2.0**24 + 2


def test_the_scale_of_a_tensor_is_applied_at_the_end():
    f = formats.get("nvfp4")
    x = np.full((1, 16), 3e-5, np.float32)
    codes, scales = f.encode(x)
    assert scales.tensor != 1
    result = matmul((codes, scales), "nvfp4", f.encode(x.T, axis=0), "nvfp4")
    assert result.to_float() == float(result.numbers[0, 0]) * (float(scales.tensor) * float(scales.tensor))
    assert result.to_float() == pytest.approx(16 * 9e-10, rel=0.2)


def test_overflow_of_float32_stays_infinite():
    f = formats.get("mxfp8_e4m3")
    large = np.full((1, 64), 2.0**127, np.float32)
    w = np.full((64, 1), 2.0, np.float32)
    w[32:] = -2
    for path in PATHS[1:]:
        found = matmul(f.encode(large), "mxfp8_e4m3", f.encode(w[:32].repeat(2, 0), axis=0), "mxfp8_e4m3", path=path)
        assert found.to_float() == np.inf
        assert np.isnan(matmul(f.encode(large), "mxfp8_e4m3", f.encode(w, axis=0), "mxfp8_e4m3", path=path).to_float())


def test_nan_and_infinity_propagate():
    f = formats.get("mxfp8_e5m2")
    one = np.uint8([[127]])
    w = np.full((3, 1), 0x3C, np.uint8), BlockScales(one, np.float32(1))
    inf, minus, nan, unit, zero = 0x7C, 0xFC, 0x7E, 0x3C, 0x00

    def total(*codes, scale=127, path=None, other=w):
        a = np.uint8([codes]), BlockScales(np.uint8([[scale]]), np.float32(1))
        return matmul(a, f.name, other, f.name, path=path).to_float().item()

    for path in ("blocks-float64", "blocks-wide"):
        assert total(unit, unit, zero, path=path) == 2
        assert total(inf, unit, zero, path=path) == np.inf
        assert total(unit, minus, zero, path=path) == -np.inf
        assert np.isnan(total(inf, minus, unit, path=path))
        assert np.isnan(total(nan, unit, unit, path=path))
        assert np.isnan(total(unit, unit, unit, scale=255, path=path))
        zeros = np.zeros((3, 1), np.uint8), BlockScales(one, np.float32(1))
        assert np.isnan(total(inf, unit, unit, path=path, other=zeros))


MX = formats.get("mxfp4")
A, W = MX.encode(np.ones((2, 40), np.float32)), MX.encode(np.ones((40, 3), np.float32), axis=0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: matmul(A, "mxfp4", W, "mxfp4", Accumulator.fixed(20)),
            ValueError,
            "accumulator of block formats must be exact or float32 (exact within a block, float32 across), not fixed:20",
        ),
        (
            lambda: matmul(A, "mxfp4", W, "mxfp4", Accumulator.floating("float32", "pairwise")),
            ValueError,
            "accumulator of block formats must be exact or float32 (exact within a block, float32 across), not float32:pairwise",
        ),
        (
            lambda: matmul(A[0], "mxfp4", W, "mxfp4"),
            TypeError,
            "operand a must be the pair of codes and scales that mxfp4 encodes to",
        ),
        (
            lambda: matmul(A, "mxfp4", (W[0], BlockScales(W[1].codes.T, np.float32(1))), "mxfp4"),
            ValueError,
            "scales of w (mxfp4) must have the shape (2, 3) for these codes, not (3, 2)",
        ),
        (
            lambda: matmul(A, "mxfp4", np.zeros((39, 2), np.uint8), "int8"),
            ValueError,
            "codes of a and w must agree in K, not have 40 and 39",
        ),
        (
            lambda: matmul((A[0] | 16, A[1]), "mxfp4", W, "mxfp4"),
            ValueError,
            "codes of a (float4_e2m1fn) must be 0 to 15, not 22",
        ),
        (
            lambda: matmul(A, "mxfp4", W, "mxfp4", path="float32"),
            KeyError,
            "path must be a known name, not 'float32'; nearest: blocks-float32",
        ),
        (
            lambda: matmul(A, "mxfp4", np.full((40, 1), 6, np.uint8), "post4", path="blocks-float64"),
            ValueError,
            "path blocks-float64 must be proved exact for these operands, "
            "not taken for a factor of the square root of two: it holds rational numbers",
        ),
    ],
)
def test_what_is_refused(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_exact_and_float32_mean_the_same():
    by_default = matmul(A, "mxfp4", W, "mxfp4").to_float()
    np.testing.assert_array_equal(by_default, np.full((2, 3), 40.0))
    np.testing.assert_array_equal(matmul(A, MX, W, MX, Accumulator.floating()).to_float(), by_default)
