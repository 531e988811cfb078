"""Folding: how many multipliers share a layer's work, and the clock cycles that follow.

The stages and formulas are those of FINN (Blott et al., ACM TRETS 11(3), 2018; ``get_exp_cycles`` of the operators of
finn-plus 1.6.1). A layer is a pipeline of up to four stages, each folded by itself:

- ``padding`` (FMPadding): channels / SIMD * padded pixels
- ``window`` (ConvolutionInputGenerator_rtl): see ``window_cycles``
- ``matrix`` (MVAU, VVAU): vectors * (rows / PE) * (columns / SIMD)
- ``requantizer`` (Thresholding): vectors * channels / PE

For the matrix stage a depthwise convolution has its channels as rows and the kernel as columns, as VVAU has. A convolution in
groups, which FINN has not, is taken as the same unit working for one group after the other.
"""

import math
from dataclasses import dataclass
from functools import cache

from formats.errors import InvalidValueError
from hwmodels.workload import Convolution, LayerWorkload


@dataclass(frozen=True, kw_only=True)
class Folding:
    """Parallelism of a stage: outputs, and inputs of each output, that are worked on in the same cycle."""

    pe: int = 1
    simd: int = 1


@dataclass(frozen=True, kw_only=True)
class MatrixShape:
    """What the matrix stage folds: ``rows`` outputs (FINN's MH) of ``columns`` products (MW), ``passes`` times for a sample."""

    rows: int
    columns: int
    passes: int
    #: matrices of that shape that are stored
    matrices: int


@cache
def divisors(number: int) -> tuple[int, ...]:
    """Divisors in ascending order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def matrix_shape(workload: LayerWorkload) -> MatrixShape:
    """Return what the layer's matrix stage folds."""
    shape = workload.convolution
    groups = 1 if shape is None or shape.depthwise else shape.groups
    return MatrixShape(
        rows=workload.output_channels // groups,
        columns=workload.dot_length,
        passes=workload.vectors * groups,
        matrices=groups * workload.matrices,
    )


def check(workload: LayerWorkload, folding: Folding) -> None:
    """Raise ``ValueError`` for a folding that does not divide the layer's matrix, naming the nearest that does."""
    shape = matrix_shape(workload)
    _check("PE", folding.pe, shape.rows, "outputs", workload.name)
    _check("SIMD", folding.simd, shape.columns, "products of an output", workload.name)


def _check(name: str, value: int, whole: int, what: str, where: str) -> None:
    if value < 1 or whole % value:
        nearest = min(divisors(whole), key=lambda divisor: (abs(divisor - value), divisor))
        raise InvalidValueError(f"{name} must divide the {whole} {what}, not be {value}; nearest: {nearest} (layer {where!r})")


def matrix_cycles(workload: LayerWorkload, folding: Folding) -> int:
    """Cycles of the matrix stage for a sample. Raises ``ValueError`` for a folding that does not divide."""
    check(workload, folding)
    shape = matrix_shape(workload)
    return shape.passes * (shape.rows // folding.pe) * (shape.columns // folding.simd)


def padding_cycles(shape: Convolution, simd: int) -> int:
    """Cycles of the padding stage; ``simd`` divides the input channels."""
    _check("SIMD of the padding", simd, shape.input_channels, "input channels", "convolution")
    return shape.input_channels // simd * math.prod(shape.padded_size)


def requantizer_cycles(workload: LayerWorkload, pe: int) -> int:
    """Cycles of the requantizer; ``pe`` divides the output channels."""
    _check("PE of the requantizer", pe, workload.output_channels, "output channels", workload.name)
    return workload.vectors * (workload.output_channels // pe)


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """Axes of a window with more than one position, and what it does on each."""

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]


def _axes(shape: Convolution) -> _Axes:
    kept = [axis for axis, size in enumerate(shape.padded_size) if size > 1] or [0]

    def of(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(values[axis] for axis in kept)

    return _Axes(
        size=of(shape.padded_size),
        out=of(shape.output_size),
        kernel=of(shape.kernel),
        stride=of(shape.stride),
        dilation=of(shape.dilation),
    )


def can_be_parallel(shape: Convolution, simd: int) -> bool:
    """Whether the window may be handed on as a whole: all channels at once, unless each is convolved alone; up to two axes."""
    if math.prod(shape.kernel) == 1:
        return True
    return len(_axes(shape).size) < 3 and (shape.depthwise or simd == shape.input_channels)


def window_cycles(shape: Convolution, simd: int, *, parallel: bool = False) -> int:
    """Cycles of the sliding window for a sample; ``simd`` divides the input channels.

    With cf = channels / SIMD and padded sizes, ``parallel``, or a kernel of one pixel: pixels * cf + 2. One at a time, over one
    axis: out * k * cf + 2, depthwise max(out * k * cf + (cf - 1) * k, size * cf + cf * (k - 1) * (stride - 1)) + 2. Over two axes:
    depth of the buffer + out_h * max(out_w * k_h * k_w * cf, stride_w * w * cf), depthwise with out_w * (stride_w - 1) * (cf - 1)
    more for each row and (stride_h - 1) * w * cf more in all. Over three axes, which FINN has not, the rows of all planes count.
    """
    _check("SIMD of the window", simd, shape.input_channels, "input channels", "convolution")
    axes, fold = _axes(shape), shape.input_channels // simd
    if parallel or math.prod(shape.kernel) == 1:
        return math.prod(shape.padded_size) * fold + 2
    window = math.prod(axes.kernel)
    if len(axes.size) == 1:
        plain = axes.out[0] * window * fold
        if not shape.depthwise:
            return plain + 2
        return max(plain + (fold - 1) * window, axes.size[0] * fold + fold * (window - 1) * (axes.stride[0] - 1)) + 2
    row = max(axes.out[-1] * window * fold, axes.stride[-1] * axes.size[-1] * fold)
    extra = 0
    if shape.depthwise:
        row += axes.out[-1] * (axes.stride[-1] - 1) * (fold - 1)
        extra = (axes.stride[-2] - 1) * axes.size[-1] * fold
    return _span(axes) * fold + math.prod(axes.out[:-1]) * row + extra


def _span(axes: _Axes) -> int:
    """Pixels from the first to the last of a window, in the order in which they arrive."""
    span, below = 1, 1
    for size, kernel, dilation in zip(reversed(axes.size), reversed(axes.kernel), reversed(axes.dilation), strict=True):
        span += (kernel - 1) * dilation * below
        below *= size
    return span


def window_span(shape: Convolution) -> int:
    """Pixels of the padded input that must have arrived before the first output."""
    return _span(_axes(shape))


def window_memory(shape: Convolution, simd: int, bits: int, *, parallel: bool = False) -> tuple[int, int, int]:
    """Return how many memories the window needs, and the width and depth of each.

    One at a time: one memory for all the pixels of a window's span, and what arrives between two windows of a stride. Parallel:
    registers for the window and, over two axes and more, a line buffer for each further row of it.
    """
    axes, fold = _axes(shape), shape.input_channels // simd
    window, width = math.prod(axes.kernel), simd * bits
    if not parallel and math.prod(shape.kernel) > 1:
        depth = _span(axes) * fold + max(0, (axes.stride[-1] - 1 - window) * fold)
        if len(axes.size) > 1:
            depth += max(0, ((axes.stride[-2] - 1) * axes.size[-1] - window) * fold)
        return 1, width, depth
    rows = math.prod(axes.kernel[:-1])
    if rows == 1:
        return 0, width, 0
    line = axes.size[-1] - ((axes.kernel[-1] - 1) * axes.dilation[-1] + 1) + axes.size[-1] * (axes.dilation[-2] - 1)
    return rows - 1, width, line * fold
