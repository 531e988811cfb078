"""Cycles and buffers of stages: FINN's own figures (finn-plus 1.6.1) for the same shape and folding."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import InvalidValueError
from hwmodels.fpga.folding import (
    Folding,
    can_be_parallel,
    check,
    divisors,
    matrix_cycles,
    matrix_shape,
    padding_cycles,
    requantizer_cycles,
    window_cycles,
    window_memory,
    window_span,
)
from hwmodels.workload import Convolution
from tests.hwmodels.fpga.shapes import convolution, dense, heads


def shape(channels: int, kernel: object, size: object, stride: object, dilation: object, depthwise: bool) -> Convolution:
    groups = channels if depthwise else 1
    made = convolution(channels, channels, kernel, size, stride=stride, dilation=dilation, groups=groups)  # type: ignore[arg-type]
    assert made.convolution is not None
    return made.convolution


#: ConvolutionInputGenerator_rtl: channels, kernel, padded size, stride, dilation, depthwise, SIMD, parallel; cycles, buffer depth
WINDOWS = [
    (8, (3, 3), (10, 10), (1, 1), (1, 1), False, 1, False, 4792, 184),
    (8, (3, 3), (10, 10), (1, 1), (1, 1), False, 4, False, 1198, 46),
    (8, (3, 3), (10, 10), (1, 1), (1, 1), False, 8, True, 102, None),
    (8, (3, 3), (11, 9), (2, 2), (1, 1), False, 2, False, 804, 84),
    (8, (5, 3), (16, 12), (1, 2), (1, 1), False, 8, False, 951, 51),
    (4, (3, 3), (12, 12), (1, 1), (2, 2), False, 2, False, 1258, 106),
    (4, (3, 3), (12, 12), (1, 1), (2, 2), False, 4, True, 146, None),
    (8, (3, 3), (10, 10), (1, 1), (1, 1), True, 2, False, 2396, 92),
    (8, (3, 3), (11, 11), (2, 2), (1, 1), True, 2, False, 1119, 108),
    (8, (3, 3), (11, 11), (2, 2), (1, 1), True, 2, True, 486, None),
    (6, (3, 3), (11, 8), (2, 1), (1, 1), True, 3, False, 594, 38),
    (8, (1, 1), (8, 8), (2, 2), (1, 1), False, 2, False, 258, None),
    (8, (2, 2), (8, 8), (2, 2), (1, 1), False, 8, False, 74, 14),
    (3, (4, 4), (32, 32), (4, 4), (1, 1), False, 1, False, 3372, 540),
    (8, (1, 3), (1, 20), (1, 1), (1, 1), False, 2, False, 218, 12),
    (8, (1, 5), (1, 21), (1, 2), (1, 1), False, 8, False, 47, 5),
    (8, (1, 5), (1, 21), (1, 2), (1, 1), True, 2, False, 197, 20),
    (8, (1, 3), (1, 24), (1, 3), (1, 2), True, 4, False, 58, 10),
    (8, (1, 3), (1, 20), (1, 1), (1, 1), False, 8, True, 22, None),
]


@pytest.mark.parametrize(
    ("channels", "kernel", "size", "stride", "dilation", "depthwise", "simd", "parallel", "cycles", "depth"), WINDOWS
)
def test_a_window_is_finns(
    channels: int,
    kernel: tuple[int, ...],
    size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    depthwise: bool,
    simd: int,
    parallel: bool,
    cycles: int,
    depth: int | None,
) -> None:
    made = shape(channels, kernel, size, stride, dilation, depthwise)
    assert window_cycles(made, simd, parallel=parallel) == cycles
    if depth is not None:
        assert window_memory(made, simd, 4) == (1, 4 * simd, depth)


def test_an_axis_of_one_makes_no_difference() -> None:
    for depthwise in (False, True):
        flat = shape(8, (5,), (21,), (2,), (1,), depthwise)
        row = shape(8, (1, 5), (1, 21), (1, 2), (1, 1), depthwise)
        column = shape(8, (5, 1), (21, 1), (2, 1), (1, 1), depthwise)
        assert window_cycles(flat, 2) == window_cycles(row, 2) == window_cycles(column, 2)
        assert window_memory(flat, 2, 4) == window_memory(column, 2, 4)


def test_the_line_buffers_of_a_parallel_window() -> None:
    # rows but one, all but what the registers of a window hold: finn's depth is (w - k_w) + w * (dilation - 1)
    assert window_memory(shape(8, (3, 3), (10, 10), (1, 1), (1, 1), False), 8, 4, parallel=True) == (2, 32, 7)
    assert window_memory(shape(8, (3, 3), (11, 11), (2, 2), (1, 1), True), 4, 4, parallel=True) == (2, 16, 8 * 2)
    assert window_memory(shape(4, (3, 3), (12, 12), (1, 1), (2, 2), False), 4, 4, parallel=True) == (2, 16, 7 + 12)
    assert window_memory(shape(8, (1, 3), (1, 20), (1, 1), (1, 1), False), 8, 4, parallel=True)[0] == 0


def test_when_a_window_can_be_handed_on_whole() -> None:
    ordinary, depthwise = (shape(8, (3, 3), (10, 10), (1, 1), (1, 1), groups) for groups in (False, True))
    assert [can_be_parallel(ordinary, simd) for simd in (4, 8)] == [False, True]
    assert can_be_parallel(depthwise, 2)
    assert not can_be_parallel(shape(2, (3, 3, 3), (5, 5, 5), (1, 1, 1), (1, 1, 1), False), 2)


def test_the_span_of_a_window_is_what_an_image_must_have_delivered() -> None:
    made = shape(1, (3, 2), (7, 5), (1, 1), (2, 3), False)
    pixels = [row * 5 + column for row in (0, 2, 4) for column in (0, 3)]  # of the first window, in the order of arrival
    assert window_span(made) == max(pixels) + 1
    volume = shape(1, (2, 2, 3), (4, 5, 6), (1, 1, 1), (1, 2, 1), False)
    assert window_span(volume) == max(p * 30 + r * 6 + c for p in (0, 1) for r in (0, 2) for c in (0, 1, 2)) + 1


@given(number=st.integers(1, 5000))
def test_divisors_are_all_that_divide(number: int) -> None:
    assert list(divisors(number)) == [d for d in range(1, number + 1) if number % d == 0]


def test_a_matrix_folds_outputs_and_products() -> None:
    layer = convolution(8, 12, (3, 3), (8, 8), padding=1)
    assert (matrix_shape(layer).rows, matrix_shape(layer).columns, matrix_shape(layer).passes) == (12, 72, 64)
    assert matrix_cycles(layer, Folding()) == layer.macs
    assert matrix_cycles(layer, Folding(pe=4, simd=9)) == layer.macs // 36 == 64 * 3 * 8


def test_a_depthwise_matrix_folds_channels_and_the_kernel() -> None:
    layer = convolution(8, 8, (3, 3), (10, 10), groups=8)
    made = matrix_shape(layer)
    assert (made.rows, made.columns, made.matrices) == (8, 9, 1)
    assert matrix_cycles(layer, Folding(pe=2, simd=3)) == 64 * 4 * 3


def test_groups_go_one_after_the_other() -> None:
    layer = convolution(8, 12, (3, 3), (10, 10), groups=4)
    made = matrix_shape(layer)
    assert (made.rows, made.columns, made.passes, made.matrices) == (3, 18, 4 * 64, 4)
    assert matrix_cycles(layer, Folding()) == layer.macs


def test_a_product_folds_one_matrix_at_a_time() -> None:
    layer = heads(matrices=3, rows=6, length=4, columns=10)
    assert (matrix_shape(layer).passes, matrix_shape(layer).matrices) == (18, 3)
    assert matrix_cycles(layer, Folding(pe=10, simd=4)) == 18


def test_every_folding_does_all_of_the_work() -> None:
    layer = convolution(6, 10, (2, 2), (5, 5))
    for pe in divisors(10):
        for simd in divisors(24):
            assert matrix_cycles(layer, Folding(pe=pe, simd=simd)) * pe * simd == layer.macs


def test_padding_and_requantizer_pass_every_value_once() -> None:
    layer = convolution(6, 10, (3, 3), (5, 4), padding=1)
    assert layer.convolution is not None
    assert padding_cycles(layer.convolution, 3) == 2 * 7 * 6
    assert requantizer_cycles(layer, 5) == layer.vectors * 2 == math.prod((5, 4, 2))


@pytest.mark.parametrize(
    ("folding", "message"),
    [
        (Folding(pe=3), "PE must divide the 8 outputs, not be 3; nearest: 2 (layer 'dense')"),
        (Folding(simd=100), "SIMD must divide the 12 products of an output, not be 100; nearest: 12 (layer 'dense')"),
        (Folding(pe=0), "PE must divide the 8 outputs, not be 0; nearest: 1 (layer 'dense')"),
    ],
)
def test_a_folding_that_does_not_divide_names_the_nearest(folding: Folding, message: str) -> None:
    for function in (check, matrix_cycles):
        with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
            function(dense(), folding)


def test_a_window_that_does_not_divide_is_refused() -> None:
    made = shape(8, (3, 3), (10, 10), (1, 1), (1, 1), False)
    with pytest.raises(InvalidValueError, match=r"^SIMD of the window must divide the 8 input channels, not be 5; nearest: 4 "):
        window_cycles(made, 5)
    with pytest.raises(InvalidValueError, match=r"^PE of the requantizer must divide the 8 output channels, not be 16"):
        requantizer_cycles(dense(), 16)
