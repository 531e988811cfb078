"""Weights as whole numbers: the adder graph of a layer is ``formats.matmul`` with an exact accumulator, bit for bit."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

import formats
from formats import InvalidValueError
from formats.format import Format
from hwmodels.fpga.adder_graph import Interval
from hwmodels.fpga.constant_matrix import decoder, graphs, inputs, matrices, whole_numbers
from hwmodels.workload import Convolution, LayerWorkload

ROWS, OUTPUTS = 24, 10
WEIGHTS = ("int2", "int4", "int8", "int4_narrow", "ternary", "binary", "e2m1", "e3m0", "e4m3", "pot4", "post4", "float8_e4m3fn")
ACTIVATIONS = ("uint4", "int8", "binary", "e2m1", "ue3m2", "pot3", "post3", "ulogsqrt2_3")


def dense(rows: int = ROWS, outputs: int = OUTPUTS) -> LayerWorkload:
    return LayerWorkload(
        name="dense",
        kind="linear",
        macs=rows * outputs,
        weights=rows * outputs,
        output_channels=outputs,
        activations_in=rows,
        activations_out=outputs,
        dot_length=rows,
    )


def grouped(groups: int, channels: int = 6, outputs: int = 6) -> LayerWorkload:
    shape = Convolution(
        input_channels=channels,
        groups=groups,
        kernel=(3, 2),
        stride=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation=(1, 1),
        input_size=(5, 4),
        output_size=(3, 3),
    )
    length = channels // groups * 6
    return LayerWorkload(
        name="convolution",
        kind="convolution",
        macs=outputs * 9 * length,
        weights=outputs * length,
        output_channels=outputs,
        activations_in=channels * 20,
        activations_out=outputs * 9,
        dot_length=length,
        convolution=shape,
    )


def random_codes(fmt: Format, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    usable = np.flatnonzero(np.isfinite(fmt.values))
    return np.random.default_rng(seed).choice(usable, shape).astype(fmt.code_dtype)


def by_graph(weight: Format, activation: Format, w: NDArray[np.uint8], a: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Outputs in LSBs of the product, even and, where there are any, odd, by the graph of a dense layer."""
    (graph,) = graphs(dense(w.shape[1], len(w)), weight, activation, w)
    numbers = whole_numbers("activations", activation, a)
    even, odd = (None if table is None else table[a] for table in (numbers.even, numbers.odd))
    scale = 2 ** (whole_numbers("weights", weight, w).exponent + numbers.exponent)
    taken = even if inputs(activation)[1] is None else np.hstack([even, np.zeros_like(even) if odd is None else odd])
    y = graph.run(taken) * scale
    return [y[:, : len(w)], y[:, len(w) :]] if y.shape[1] > len(w) else [y]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_graph_is_the_exact_product(weight: str, activation: str) -> None:
    w_format, a_format = formats.scalar(weight), formats.scalar(activation)
    w, a = random_codes(w_format, (OUTPUTS, ROWS), 1), random_codes(a_format, (100, ROWS), 2)
    got = by_graph(w_format, a_format, w, a)
    exact = formats.matmul(a, a_format, np.ascontiguousarray(w.T), w_format).to_integers()
    wanted = list(exact) if isinstance(exact, tuple) else [exact]
    assert len(got) == len(wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_without_odd_powers_need_no_odd_sums() -> None:
    post = formats.scalar("post4")
    even_codes = np.flatnonzero((post.root == 0) & (post.significand != 0)).astype(np.uint8)
    (graph,) = graphs(dense(2, 2), post, formats.scalar("uint4"), np.resize(even_codes, (2, 2)))
    assert graph.shape == (2, 2)


def test_a_power_of_two_that_all_weights_share_costs_nothing() -> None:
    fmt = formats.scalar("e4m3")
    values = np.array([[1.0, 2, 3], [2, 1, 1]], np.float32)
    small, large = (graphs(dense(3, 2), fmt, formats.scalar("int4"), fmt.encode(values * scale))[0] for scale in (1, 16))
    assert small.lut == large.lut > 0
    assert whole_numbers("weights", fmt, fmt.encode(values * 16)).exponent == 9 + 4  # above the smallest step, 2**-9


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_every_group_has_a_matrix_of_its_own(groups: int) -> None:
    workload, fmt = grouped(groups), formats.scalar("int4")
    values = np.random.default_rng(0).integers(-8, 8, size=(6, 6 // groups, 3, 2))
    made = matrices(workload, fmt, fmt.encode(values.astype(np.float32)))
    assert len(made) == groups
    for group, (even, odd) in enumerate(made):
        assert odd is None
        own = values[group * 6 // groups : (group + 1) * 6 // groups]
        np.testing.assert_array_equal(even, own.reshape(len(own), -1).T)


@pytest.mark.parametrize(
    ("name", "even", "odd"),
    [
        ("uint4", Interval(0, 15), None),
        ("int4_narrow", Interval(-7, 7), None),
        ("binary", Interval(-1, 1), None),
        ("e2m1", Interval(-12, 12), None),
        ("post3", Interval(-2, 2), Interval(-1, 1)),  # 1/2 and 1; 1/2 root
        ("ulogsqrt2_3", Interval(0, 8), Interval(0, 4)),
    ],
)
def test_intervals_are_in_the_smallest_steps(name: str, even: Interval, odd: Interval | None) -> None:
    assert inputs(formats.scalar(name)) == (even, odd)


@pytest.mark.parametrize("name", ["uint1", "uint4", "uint8", "int4", "int8", "int4_narrow", "ternary"])
def test_integers_need_no_decoder(name: str) -> None:
    fmt = formats.scalar(name)
    assert decoder(fmt)[0] == 0
    largest = max(abs(fmt.minimum) - 1 if fmt.minimum == -(2 ** (fmt.bits - 1)) else abs(fmt.minimum), fmt.maximum)
    assert decoder(fmt)[1] == int(largest).bit_length() + fmt.signed


@pytest.mark.parametrize(
    ("name", "luts", "bits"),
    [
        ("e2m1", 5, 5),  # 0, 1, 2, 3, 4, 6, 8, 12 half steps and their negatives, in two's complement; minus zero has no sign
        ("binary", 1, 2),  # -1 and 1: the sign is the inverted code, the last bit a constant
        ("pot3", 4, 4),  # 0, 1, 2, 4 and their negatives
        ("post3", 5, 5),  # even 0, 1, 2 and odd 0, 1, with signs
        ("e4m3", 19 * 4, 19),  # 15 * 2**14 and a sign; each bit a table of 256 entries, four LUTs
    ],
)
def test_decoders_are_a_table_for_each_bit(name: str, luts: int, bits: int) -> None:
    assert decoder(formats.scalar(name)) == (luts, bits)


def test_a_decoder_is_no_larger_than_a_table_of_all_its_bits() -> None:
    for name in ("ue3m2", "e4m3", "pot4", "post4", "ulog2_4"):
        fmt = formats.scalar(name)
        luts, bits = decoder(fmt)
        assert 0 < luts <= bits * math.ceil(2**fmt.bits / 64), name


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("float8_e4m3fn", 0x7F, r"^codes of weights \(float8_e4m3fn\) must be finite numbers, not NaN or Inf in 4 elements$"),
        ("ternary", 0b10, r"^codes of weights \(ternary\) must be used ones, not unused ones in 4 elements$"),
    ],
)
def test_codes_that_are_no_numbers_are_refused(name: str, code: int, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        matrices(dense(2, 2), formats.scalar(name), np.full((2, 2), code, np.uint8))


def test_a_range_of_more_than_31_bits_is_refused() -> None:
    fmt = formats.scalar("bfloat16")
    codes = fmt.encode(np.array([[1e-5, 1e5]], np.float32))
    with pytest.raises(
        InvalidValueError,
        match=r"^weights must be below 2\*\*31 of their smallest step to be unrolled, not \d+ of it \(bfloat16\)$",
    ):
        matrices(dense(2, 1), fmt, codes)
    near = fmt.encode(np.array([[0.5, 1.5]], np.float32))
    np.testing.assert_array_equal(matrices(dense(2, 1), fmt, near)[0][0], [[1], [3]])
    with pytest.raises(InvalidValueError, match=r"^activations must be below 2\*\*31 of their smallest step"):
        inputs(fmt)


def test_codes_must_be_those_of_the_layer() -> None:
    with pytest.raises(InvalidValueError, match=r"^weight codes must be 10 x 24, not of the shape \(24, 10\)$"):
        matrices(dense(), formats.scalar("int4"), np.zeros((24, 10), np.uint8))
    product = LayerWorkload(
        name="scores", kind="product", macs=64, weights=0, output_channels=4, activations_in=16, activations_out=16, dot_length=4
    )
    with pytest.raises(InvalidValueError, match=r"^weights must be stored to be unrolled, not computed$"):
        matrices(product, formats.scalar("int4"), np.zeros((4, 4), np.uint8))
