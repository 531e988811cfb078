"""Convolutions of codes, with the accumulator that hardware would have: matrix products of windows, some images at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.matmul import EXACT, Plan, as_format, plan
from formats.arithmetic.products import Levels, Operand, as_codes, operand
from formats.arithmetic.results import Result
from formats.errors import InvalidTypeError, InvalidValueError
from formats.format import Format

#: windows are written out for no more codes than this at a time, as long as that is one row of outputs
WINDOW_CODES = 1 << 21

Both = int | tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Steps of a convolution along height and width."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    kernel: tuple[int, int]

    def outputs(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the outputs for an image of this ``size``; ``ValueError`` where there is none."""
        found = [self._outputs(axis, size[axis]) for axis in (0, 1)]
        if min(found) < 1:
            reach = tuple(self.dilation[axis] * (self.kernel[axis] - 1) + 1 for axis in (0, 1))
            padded = tuple(size[axis] + 2 * self.padding[axis] for axis in (0, 1))
            fits = f"fit into the padded image of {padded[0]} x {padded[1]}"
            raise InvalidValueError(f"kernel must {fits}, not {reach[0]} x {reach[1]}")
        return found[0], found[1]

    def _outputs(self, axis: int, size: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    def windows(self, images: NDArray[Any], rows: slice) -> NDArray[Any]:
        """Return the windows of padded images (N, C, H, W) for some rows of outputs, (N * rows * columns, C * kh * kw)."""
        reach = tuple(self.dilation[axis] * (self.kernel[axis] - 1) + 1 for axis in (0, 1))
        every = sliding_window_view(images, reach, axis=(2, 3))[:, :, :: self.stride[0], :: self.stride[1]]
        chosen = every[:, :, rows, :, :: self.dilation[0], :: self.dilation[1]]
        n, c, height, width = chosen.shape[:4]
        return chosen.transpose(0, 2, 3, 1, 4, 5).reshape(n * height * width, c * self.kernel[0] * self.kernel[1])


def convolve2d(
    a_codes: ArrayLike,
    a_format: str | Format,
    w_codes: ArrayLike,
    w_format: str | Format,
    accumulator: Accumulator = EXACT,
    *,
    stride: Both = 1,
    padding: Both = 0,
    dilation: Both = 1,
    groups: int = 1,
    path: str | None = None,
) -> Result:
    """Convolve codes (N, C, H, W) with codes (O, C / groups, kh, kw); the result has the shape (N, O, H', W').

    As in neural networks, the kernel is not mirrored. k runs over (c, kh, kw), the last fastest: the weight's own order.
    Padding is the number zero, +0 in floating point, also for formats that have no code for it. ``stride``, ``padding`` and
    ``dilation`` are numbers, or pairs for height and width. Accumulators, ``path`` and errors are those of ``matmul``.
    """
    if not isinstance(accumulator, Accumulator):
        raise InvalidTypeError(f"accumulator must be an Accumulator, not {type(accumulator).__name__}")
    formats = _scalar(a_format), _scalar(w_format)
    a, w = as_codes("a", formats[0], a_codes, "N, C, H, W"), as_codes("w", formats[1], w_codes, "O, C / groups, kh, kw")
    _check_weight(a.shape[1], w.shape, groups)
    geometry = Geometry(
        stride=_pair("stride", stride, 1),
        padding=_pair("padding", padding, 0),
        dilation=_pair("dilation", dilation, 1),
        kernel=(w.shape[2], w.shape[3]),
    )
    size = geometry.outputs((a.shape[2], a.shape[3]))
    specials = accumulator.kind == "floating"
    w_matrix = np.ascontiguousarray(w.reshape(w.shape[0], math.prod(w.shape[1:])).T)
    a_operand, zero = _padded(operand("a", formats[0], a, specials=specials), geometry)
    w_operand = operand("w", formats[1], w, specials=specials)
    steps = plan(a_operand, w_operand, w_matrix, accumulator, path, a.shape[0] * size[0] * size[1])
    return steps.result(_convolve(steps, a, w_matrix, geometry, size, zero, groups))


def _convolve(
    steps: Plan, a: NDArray[Any], w: NDArray[Any], geometry: Geometry, size: tuple[int, int], zero: int, groups: int
) -> list[NDArray[Any]]:
    """Return the raw content of the accumulators, outputs (N, O, H', W') on the last four axes."""
    outputs, channels = w.shape[1] // groups, a.shape[1] // groups
    blanks = [each[..., 0, 0] for each in steps.blank(1, 1)]
    made = [np.zeros((*each.shape, a.shape[0], w.shape[1], *size), each.dtype) for each in blanks]
    weights = [np.ascontiguousarray(w[:, group * outputs : (group + 1) * outputs]) for group in range(groups)]
    for images, rows in _parts(a.shape[0], size, w.shape[0]):
        for group in range(groups):
            padded = _pad(a[images, group * channels : (group + 1) * channels], geometry.padding, zero)
            content = steps.run(geometry.windows(padded, rows), weights[group])
            of_group = slice(group * outputs, (group + 1) * outputs)
            for out, each in zip(made, content, strict=True):
                shape = (*each.shape[:-2], padded.shape[0], rows.stop - rows.start, size[1], outputs)
                out[..., images, of_group, rows, :] = np.moveaxis(each.reshape(shape), -1, -3)
    return made


def _parts(images: int, size: tuple[int, int], depth: int) -> Iterator[tuple[slice, slice]]:
    """Yield images, and rows of outputs, whose windows come to about ``WINDOW_CODES`` codes."""
    row = max(size[1] * depth, 1)
    rows = max(min(WINDOW_CODES // row, size[0]), 1)
    together = max(WINDOW_CODES // (row * size[0]), 1)
    for first in range(0, images, together):
        for top in range(0, size[0], rows):
            yield slice(first, min(first + together, images)), slice(top, min(top + rows, size[0]))


def _padded(side: Operand, geometry: Geometry) -> tuple[Operand, int]:
    """Return the operand with a code for padding among those that occur, and that code."""
    if not any(geometry.padding):
        return side, 0
    zero = _zero_code(side.levels)
    used = side.used.copy()
    used[zero] = True
    return side._replace(used=used), zero


def _zero_code(levels: Levels) -> int:
    """Return the first code of +0; where the format has none that is the entry behind the last code."""
    return int(np.flatnonzero((levels.rational == 0) & ~np.signbit(levels.rational))[0])


def _pad(images: NDArray[Any], padding: tuple[int, int], zero: int) -> NDArray[Any]:
    if not any(padding):
        return images
    height, width = images.shape[2:]
    dtype = np.promote_types(images.dtype, np.min_scalar_type(zero))
    padded = np.full((*images.shape[:2], height + 2 * padding[0], width + 2 * padding[1]), zero, dtype)
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = images
    return padded


def _check_weight(channels: int, weight: tuple[int, ...], groups: int) -> None:
    if min(weight[2:]) < 1:
        raise InvalidValueError(f"kernel must be at least 1 x 1, not {weight[2]} x {weight[3]}")
    if _whole("groups", groups) < 1 or channels % groups or weight[0] % groups:
        raise InvalidValueError(f"groups must divide the {channels} channels and the {weight[0]} outputs, not {groups}")
    if weight[1] != channels // groups:
        raise InvalidValueError(f"codes of w must have {channels // groups} channels (C / groups), not {weight[1]}")


def _scalar(fmt: str | Format) -> Format:
    found = as_format(fmt)
    if not isinstance(found, Format):
        raise InvalidValueError(f"format must be one whose codes stand alone here, not the block format {found.name}")
    return found


def _pair(what: str, value: Both, least: int) -> tuple[int, int]:
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2:
        raise InvalidValueError(f"{what} must be a number or a pair of them, not {len(both)} numbers")
    found = _whole(what, both[0]), _whole(what, both[1])
    if min(found) < least:
        raise InvalidValueError(f"{what} must be at least {least}, not {min(found)}")
    return found


def _whole(what: str, value: object) -> int:
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InvalidTypeError(f"{what} must be a whole number or a pair of them, not {type(value).__name__}") from None
