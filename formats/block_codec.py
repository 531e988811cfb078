"""Encode, decode and quantize whole arrays in block formats: checks and layout here, the arithmetic in ``kernels.blocks``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.codec import GATHERED, Codes, as_codes, as_input, as_output
from formats.errors import InvalidTypeError, InvalidValueError
from formats.kernels import blocks as kernels
from formats.rules import rule
from formats.threads import in_shares

if TYPE_CHECKING:
    from formats.block import BlockFormat


class BlockScales(NamedTuple):
    """Scales of a tensor: a code for each block, and a float32 for all of it where the format has one (else 1)."""

    codes: NDArray[np.uint8]
    tensor: np.float32


def encode(fmt: "BlockFormat", x: ArrayLike, axis: int, rounding: str, seed: int) -> tuple[Codes, BlockScales]:
    """See ``BlockFormat.encode``."""
    source = _with_axis(fmt, as_input(x), axis)
    shape = list(source.shape)
    shape[axis] = -(-shape[axis] // fmt.block)
    codes: Codes = np.empty(source.shape, np.uint8) if fmt.element.bits <= 8 else np.empty(source.shape, np.uint16)
    scales = np.empty(shape, np.uint8)
    parameters = _parameters(fmt, _tensor_scale(fmt, source, axis), rounding, seed)
    whole = np.ascontiguousarray(source, np.float32)
    units, length, inner = _layout(source.shape, axis, fmt.block)
    flat_x, flat_codes, flat_scales = whole.reshape(-1), codes.reshape(-1), scales.reshape(-1)

    def work(start: int, stop: int) -> int:
        return int(kernels.encode_blocks(flat_x, length, inner, parameters, start, stop, flat_codes, flat_scales))

    if in_shares(work, units, weight=fmt.block * inner):
        raise _unusable(fmt, source, axis)
    return codes, BlockScales(scales, parameters.scale.tensor)


def decode(
    fmt: "BlockFormat", codes: ArrayLike, scales: BlockScales, axis: int, out: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """See ``BlockFormat.decode``."""
    given = np.ascontiguousarray(_with_axis(fmt, as_codes(fmt.element, codes), axis))
    wanted = list(given.shape)
    wanted[axis] = -(-wanted[axis] // fmt.block)
    scale_codes = np.asarray(scales.codes)
    if list(scale_codes.shape) != wanted:
        raise InvalidValueError(f"scales of {fmt.name} must be {tuple(wanted)} for these codes, not {scale_codes.shape}")
    if scale_codes.dtype != np.uint8:
        raise InvalidTypeError(f"scales of {fmt.name} must be uint8, not {scale_codes.dtype}")
    if np.isnan(fmt.scale_format.values[scale_codes]).any():
        raise InvalidValueError(f"scales of {fmt.name} must be numbers, not the code of NaN in {fmt.scale_format.name}")
    parameters = _parameters(fmt, np.float32(scales.tensor), "nearest_even", 0)
    factors = _factors(fmt, scale_codes, np.float32(scales.tensor))
    result = np.empty(given.shape, np.float32) if out is None else as_output(out, given.shape)
    target = result if result.flags.c_contiguous else np.empty(given.shape, np.float32)
    units, length, inner = _layout(given.shape, axis, fmt.block)
    flat_codes, flat_factors, flat_out = given.reshape(-1), np.ascontiguousarray(factors).reshape(-1), target.reshape(-1)

    def work(start: int, stop: int) -> None:
        kernels.decode_blocks(flat_codes, length, inner, flat_factors, parameters, start, stop, flat_out)

    in_shares(work, units, weight=fmt.block * inner)
    if target is not result:
        result[...] = target
    return result


def _factors(fmt: "BlockFormat", codes: NDArray[np.uint8], tensor: np.float32) -> NDArray[np.float32]:
    """Return what the elements of each block are multiplied by."""
    if fmt.scale == "e4m3":
        return fmt.scale_format.decode(codes, tensor)
    return np.ldexp(np.float32(1), codes.astype(np.int32) - kernels.E8M0_BIAS + fmt.unit_exponent).astype(np.float32)


def quantize(
    fmt: "BlockFormat", x: ArrayLike, axis: int, out: NDArray[np.float32] | None, rounding: str, seed: int
) -> NDArray[np.float32]:
    """See ``BlockFormat.quantize``."""
    source = _with_axis(fmt, as_input(x), axis)
    result = np.empty(source.shape, np.float32) if out is None else as_output(out, source.shape)
    if np.may_share_memory(source, result):
        if (source.ctypes.data, source.strides) != (result.ctypes.data, result.strides):
            source = source.copy()  # writing in order would change elements not yet read
        elif not np.isfinite(_largest(source)):
            raise _unusable(fmt, source, axis)  # before anything is overwritten
    parameters = _parameters(fmt, _tensor_scale(fmt, source, axis), rounding, seed)
    in_place = source.dtype == np.float32 and source.flags.c_contiguous and result.flags.c_contiguous
    if in_place or rounding == "stochastic":  # the sequence of random numbers belongs to the whole array's order
        target = result if result.flags.c_contiguous else np.empty(source.shape, np.float32)
        _quantize_whole(fmt, np.ascontiguousarray(source, np.float32), axis, parameters, target)
        if target is not result:
            result[...] = target
        return result
    for part in _parts(source.shape, axis % source.ndim, fmt.block):
        piece = np.ascontiguousarray(source[part], np.float32)
        piece = piece.copy() if np.may_share_memory(piece, source) else piece
        _quantize_whole(fmt, piece, axis, parameters, piece, of=source)
        result[part] = piece
    return result


def _quantize_whole(
    fmt: "BlockFormat",
    x: NDArray[np.float32],
    axis: int,
    parameters: kernels.BlockParameters,
    out: NDArray[np.float32],
    of: NDArray[Any] | None = None,
) -> None:
    units, length, inner = _layout(x.shape, axis, fmt.block)
    flat_x, flat_out = x.reshape(-1), out.reshape(-1)

    def work(start: int, stop: int) -> int:
        return int(kernels.quantize_blocks(flat_x, length, inner, parameters, start, stop, flat_out))

    if in_shares(work, units, weight=fmt.block * inner):
        raise _unusable(fmt, x if of is None else of, axis)


def _with_axis(fmt: "BlockFormat", x: NDArray[Any], axis: int) -> NDArray[Any]:
    if x.ndim == 0:
        raise InvalidValueError(f"x for {fmt.name} must have at least one axis, not none")
    if not -x.ndim <= axis < x.ndim:
        raise InvalidValueError(f"axis for {fmt.name} must be {-x.ndim} to {x.ndim - 1}, not {axis}")
    return x


def _layout(shape: tuple[int, ...], axis: int, block: int) -> tuple[int, int, int]:
    """Return the number of units, the elements along the axis and the columns of a contiguous array, as the loops want them."""
    axis %= len(shape)
    outer, inner = int(np.prod(shape[:axis], dtype=np.int64)), int(np.prod(shape[axis + 1 :], dtype=np.int64))
    length = shape[axis]
    units = outer * -(-length // block)
    if inner == 1 and length % block == 0:  # rows of whole blocks are one long row
        length *= outer
    return (units, length, inner) if inner else (0, length, inner)


def _parts(shape: tuple[int, ...], axis: int, block: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array into parts of a bounded number of elements, along the blocks' axis between blocks only."""

    def halves(part: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
        sizes = [piece.stop - piece.start for piece in part]
        if int(np.prod(sizes, dtype=np.int64)) > GATHERED:
            for number, size in enumerate(sizes):
                step = block if number == axis else 1
                middle = part[number].start + size // (2 * step) * step
                if part[number].start < middle < part[number].stop:
                    for half in (slice(part[number].start, middle), slice(middle, part[number].stop)):
                        yield from halves((*part[:number], half, *part[number + 1 :]))
                    return
        yield part

    return halves(tuple(slice(0, size) for size in shape))


def _parameters(fmt: "BlockFormat", tensor: np.float32, rounding: str, seed: int) -> kernels.BlockParameters:
    closed = fmt.scale_format.closed_form
    element = rule(fmt.element, fmt.element._rules, rounding, "saturate", seed)
    return kernels.BlockParameters(
        block=fmt.block,
        element=element.numbers,
        tables=element.tables,
        scale=kernels.ScaleParameters(
            powers=fmt.scale == "e8m0",
            largest_exponent=fmt.largest_exponent,
            unit_exponent=fmt.unit_exponent,
            tensor=tensor,
            reach=np.float32(fmt.element.largest * tensor),
            high=fmt.scale_format.largest,
            low=np.float32(fmt.scale_format.values[1]),
            mantissa_bits=closed.mantissa_bits if closed else 0,
            minimum_exponent=closed.minimum_exponent if closed else 0,
        ),
    )


def _largest(x: NDArray[Any]) -> np.float32:
    """Return the largest magnitude, NaN if there is one, without a temporary that grows with the array."""
    if x.size == 0:
        return np.float32(0)
    if x.dtype == np.float32 and x.flags.c_contiguous:
        flat = x.reshape(-1)
        bits = [0]

        def work(start: int, stop: int) -> None:
            bits.append(int(kernels.largest_bits(flat[start:stop])))

        in_shares(work, flat.size)
        return np.int32(max(bits)).view(np.float32)
    return max(np.float32(abs(np.max(x))), np.float32(abs(np.min(x))))


def _tensor_scale(fmt: "BlockFormat", x: NDArray[Any], axis: int) -> np.float32:
    """Return the scale of all blocks: 1 where blocks have powers of two, else such that the largest scale is the largest level."""
    if fmt.scale == "e8m0":
        return np.float32(1)
    largest = _largest(x)
    if not np.isfinite(largest):
        raise _unusable(fmt, x, axis)
    if largest == 0:
        return np.float32(1)
    return max(largest / (fmt.element.largest * fmt.scale_format.largest), np.finfo(np.float32).tiny)


def _unusable(fmt: "BlockFormat", x: NDArray[Any], axis: int) -> InvalidValueError:
    wrong = np.argwhere(~np.isfinite(x))
    wrong[:, axis] //= fmt.block
    found = {tuple(int(i) for i in place) for place in wrong}
    return InvalidValueError(f"values for {fmt.name} must be finite, not NaN or Inf in {len(found)} blocks, the first {min(found)}")
