"""Encode, decode and quantize whole arrays: checks, scales and layout here, the arithmetic in ``kernels``."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import kernels
from formats.definition import Definition
from formats.errors import InvalidTypeError, InvalidValueError
from formats.rules import Rules, rule
from formats.threads import in_shares

Codes = NDArray[np.uint8] | NDArray[np.uint16]
_ACCEPTED = ("float32", "float16", "bfloat16")
#: elements gathered at a time from arrays that do not lie in one piece, or are to be widened
GATHERED = 32 * kernels.BLOCK


def encode(fmt: Definition, rules: Rules, x: ArrayLike, scale: ArrayLike, rounding: str, overflow: str, seed: int) -> Codes:
    """See ``Format.encode``."""
    source = as_input(x)
    scales = _as_scales(scale, source.shape)
    found = rule(fmt, rules, rounding, overflow, seed)
    codes: Codes = np.empty(source.shape, np.uint8) if fmt.bits <= 8 else np.empty(source.shape, np.uint16)
    if _run(kernels.encode, found, source, np.dtype(np.float32), scales, codes):
        _refuse_nan(fmt, source)
    return codes


def decode(
    fmt: Definition, rules: Rules, codes: ArrayLike, scale: ArrayLike, out: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """See ``Format.decode``."""
    given = as_codes(fmt, codes)
    scales = _as_scales(scale, given.shape)
    found = rule(fmt, rules, "nearest_even", "saturate", 0)
    result = np.empty(given.shape, np.float32) if out is None else as_output(out, given.shape)
    _run(kernels.decode, found, given, np.dtype(fmt.code_dtype), scales, result)
    return result


def quantize(
    fmt: Definition,
    rules: Rules,
    x: ArrayLike,
    scale: ArrayLike,
    out: NDArray[np.float32] | None,
    rounding: str,
    overflow: str,
    seed: int,
) -> NDArray[np.float32]:
    """See ``Format.quantize``."""
    source = as_input(x)
    scales = _as_scales(scale, source.shape)
    found = rule(fmt, rules, rounding, overflow, seed)
    result = np.empty(source.shape, np.float32) if out is None else as_output(out, source.shape)
    if _run(kernels.quantize, found, source, np.dtype(np.float32), scales, result):
        _refuse_nan(fmt, result)  # which may be where x was
    return result


def as_input(x: ArrayLike) -> NDArray[Any]:
    """Return an array of float32, or of a 16-bit float that float32 holds exactly; refuse everything else."""
    array = np.asarray(x)
    if array.dtype.name not in _ACCEPTED:
        detail = ": narrowing it first would round twice" if array.dtype == np.float64 else ""
        raise InvalidTypeError(f"x must be float32, float16 or bfloat16, not {array.dtype}{detail}")
    return array


def as_float32(x: ArrayLike) -> NDArray[np.float32]:
    """Return float32 as it is and 16-bit floats widened exactly; refuse everything else."""
    return as_input(x).astype(np.float32, copy=False)


def as_codes(fmt: Definition, codes: ArrayLike) -> NDArray[Any]:
    """Return codes as the format's own dtype; refuse what is no integer or no code."""
    array = np.asarray(codes)
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"codes of {fmt.name} must be integers, not {array.dtype}")
    if array.size and (np.iinfo(array.dtype).max >= 2**fmt.bits or array.dtype.kind == "i"):
        low, high = int(array.min()) if array.dtype.kind == "i" else 0, int(array.max())
        if low < 0 or high >= 2**fmt.bits:
            raise InvalidValueError(f"codes of {fmt.name} must be 0 to {2**fmt.bits - 1}, not {low if low < 0 else high}")
    return array.astype(fmt.code_dtype, copy=False)


def as_output(out: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return ``out`` if it can take float32 results of this shape."""
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InvalidValueError(f"out must be a float32 array of shape {shape}, not {found}")
    if not out.flags.writeable:
        raise InvalidValueError("out must be writable, not read-only")
    return out


def _as_scales(scale: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the scales, of as many axes as ``shape``: each as long as there, or 1."""
    with np.errstate(over="ignore"):
        array = np.asarray(scale, dtype=np.float32)
    wrong = ~(np.isfinite(array) & (array > 0))
    if wrong.any():
        raise InvalidValueError(f"scale must be finite and positive, not {array[wrong].flat[0]}")
    padded = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if padded.ndim != len(shape) or any(size not in (1, whole) for size, whole in zip(padded.shape, shape, strict=True)):
        raise InvalidValueError(f"scale must broadcast against the shape {shape}, not have the shape {array.shape}")
    return padded


def _refuse_nan(fmt: Definition, values: NDArray[Any]) -> None:
    if not fmt.nan:
        count = np.count_nonzero(np.isnan(values))
        raise InvalidValueError(f"values for {fmt.name} must be numbers, not NaN in {count} elements: the format has no NaN code")


def _run(
    kernel: Callable[..., int],
    of: kernels.Rule,
    source: NDArray[Any],
    wanted: np.dtype[Any],
    scales: NDArray[np.float32],
    target: NDArray[Any],
) -> int:
    """Run a compiled loop from all of ``source``, read as ``wanted``, to all of ``target``; return the sum of what it returns."""
    if np.may_share_memory(source, target) and (source.ctypes.data, source.strides) != (target.ctypes.data, target.strides):
        source = source.copy()  # writing in order would change elements not yet read
    if np.may_share_memory(scales, target):
        scales = scales.copy()
    flat_scales, repeat = _repeated(scales, source.shape)
    if repeat and source.dtype == wanted and source.flags.c_contiguous and target.flags.c_contiguous:
        flat_source, flat_target = source.reshape(-1), target.reshape(-1)

        def work(start: int, stop: int) -> int:
            return kernel(flat_source, flat_scales, repeat, of.numbers, of.tables, 0, start, stop, flat_target)

        return in_shares(work, source.size, align=kernels.BLOCK)
    return _run_gathered(kernel, of, source, wanted, scales, target)


def _repeated(scales: NDArray[np.float32], shape: tuple[int, ...]) -> tuple[NDArray[np.float32], int]:
    """Return the scales, flat, and how many neighbours share each before the next one has its turn; 0 if they do not lie so."""
    varying = [axis for axis, size in enumerate(scales.shape) if size != 1]
    if not varying:
        return scales.reshape(-1), 1
    first, last = varying[0], varying[-1]
    if scales.shape[first : last + 1] != shape[first : last + 1]:
        return scales.reshape(-1), 0
    return np.ascontiguousarray(scales).reshape(-1), int(np.prod(shape[last + 1 :], dtype=np.int64))


def _run_gathered(
    kernel: Callable[..., int],
    of: kernels.Rule,
    source: NDArray[Any],
    wanted: np.dtype[Any],
    scales: NDArray[np.float32],
    target: NDArray[Any],
) -> int:
    """Do the same for any layout: a bounded number of elements is gathered, worked on and scattered at a time."""
    single = scales.size == 1
    operands = [source, target] if single else [source, target, np.broadcast_to(scales, source.shape)]
    roles: list[list[Any]] = [["readonly", "contig"], ["writeonly", "contig"], ["readonly", "contig"]]
    pieces = np.nditer(
        operands,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=roles[: len(operands)],
        op_dtypes=[wanted, target.dtype, np.dtype(np.float32)][: len(operands)],
        order="C" if of.numbers.stochastic else "K",  # the sequence of random numbers belongs to the order of the elements
        buffersize=GATHERED,
    )
    done = total = 0
    with pieces:
        for values, results, *piece_scales in pieces:
            piece = scales.reshape(-1) if single else piece_scales[0]
            total += kernel(values, piece, 1, of.numbers, of.tables, done, 0, values.size, results)
            done += values.size
    return total
