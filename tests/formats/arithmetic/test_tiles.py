"""Tiles cover a product once, and stay small beside its operands and its result."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import formats
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.matmul import matmul
from formats.arithmetic.results import FloatResult, IntegerResult
from formats.arithmetic.tiles import Tiling, tiling

lengths = st.one_of(st.integers(0, 70), st.integers(0, 5000))


@given(lengths, lengths, lengths, st.sampled_from([4, 8, 24]), st.sampled_from([1, 7, 256, 1024, 10**6]))
def test_tiles_are_at_least_one_number_and_no_deeper_than_allowed(m, k, n, size, depth):
    a, w = np.broadcast_to(np.uint8(0), (m, k)), np.broadcast_to(np.uint8(0), (k, n))
    made = tiling(a, w, bytes_per_number=size, depth=depth)
    assert min(made.rows, made.columns, made.depth) >= 1
    assert made.depth <= max(min(depth, k), 1)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_tiles_cover_everything_once_and_k_in_order(columns, depth, rows, wide, deep):
    seen = np.zeros((depth, columns), int)
    reached = np.zeros(columns, int)
    for across, k in Tiling(rows=rows, columns=wide, depth=deep).spans(columns, depth):
        assert (reached[across] == k.start).all()
        reached[across] = k.stop
        seen[k, across] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("names", "accumulator", "path"),
    [
        (("int8", "int8"), "exact", "float32"),
        (("int8", "int8"), "exact", "int8"),
        (("e4m3", "e4m3"), "exact", "float64"),
        (("int16", "int16"), "exact", "float64"),
        (("bfloat16", "bfloat16"), "exact", "bands"),
        (("int8", "int8"), "fixed:20:wrap", "float32"),
        (("int8", "int8"), "fixed:16", "ordered-float32"),
        (("int8", "int8"), "fixed:40", "ordered-int64"),
        (("int8", "int8"), "float32", "products-float32"),
        (("mxfp4", "mxfp4"), "exact", "blocks-float32"),
        (("mxfp8_e5m2", "mxfp8_e5m2"), "exact", "blocks-wide"),
    ],
)
@pytest.mark.parametrize("shape", [(700, 640, 500), (64, 1500, 900)])
def test_memory_is_at_most_twice_that_of_operands_and_result(names, accumulator, path, shape):
    """Tables of 16-bit formats come to some megabytes, and so their operands here are larger."""
    m, k, n = shape if "16" not in names[0] else (shape[0], 1900, 1900)
    rng = np.random.default_rng(0)
    operands, size = [], 0
    for name, x, axis in zip(names, (rng.standard_normal((m, k)), rng.standard_normal((k, n))), (-1, 0), strict=True):
        fmt = formats.get(name)
        scaled = x.astype(np.float32) * np.float32(30 if "int" in name else 1)
        operands.append(fmt.encode(scaled, axis=axis) if isinstance(fmt, formats.BlockFormat) else fmt.encode(scaled))
        codes = operands[-1][0] if isinstance(operands[-1], tuple) else operands[-1]
        size += codes.nbytes

    def call():
        return matmul(operands[0], names[0], operands[1], names[1], Accumulator.parse(accumulator), path=path)

    call()  # what is made once stays out of the count: tables of formats, compiled loops
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(result, IntegerResult | FloatResult)
    size += result.sums.numbers.nbytes if isinstance(result, IntegerResult) else result.numbers.nbytes
    assert peak + sum(codes.nbytes for codes in (o[0] if isinstance(o, tuple) else o for o in operands)) <= 2 * size
