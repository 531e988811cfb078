"""Encode, decode and quantize whole arrays: checks, scales and layout here, the arithmetic in ``kernels``."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import kernels
from formats.boundaries import ROUNDINGS, boundaries, level_codes, overflow_boundary
from formats.definition import ClosedForm, Definition
from formats.errors import InvalidTypeError, InvalidValueError
from formats.names import unknown_name
from formats.threads import in_shares

Codes = NDArray[np.uint8] | NDArray[np.uint16]
OVERFLOWS = ("saturate", "ieee")
_KINDS = {"uniform": kernels.UNIFORM, "floating": kernels.FLOATING, "logarithmic": kernels.LOGARITHMIC}
_WIDENED = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class RoundingTable:
    """Everything the compiled loops need for one format and one rounding."""

    parameters: kernels.Parameters
    thresholds: NDArray[np.float32]
    level_codes: NDArray[np.int64]
    values: NDArray[np.float32]


#: the tables made so far for one format, by rounding
Rules = dict[str, RoundingTable]


def encode(fmt: Definition, rules: Rules, x: ArrayLike, scale: ArrayLike, rounding: str, overflow: str, seed: int) -> Codes:
    """See ``Format.encode``."""
    source = as_float32(x)
    scales, repeat = _as_scales(scale, source.shape)
    rule = _rule(fmt, rules, rounding, overflow, seed)
    flat = np.ascontiguousarray(source).reshape(-1)
    codes: Codes = np.empty(flat.shape, np.uint8) if fmt.bits <= 8 else np.empty(flat.shape, np.uint16)

    def work(start: int, stop: int) -> int:
        found: int = kernels.encode(flat, scales, repeat, rule.parameters, rule.thresholds, rule.level_codes, start, stop, codes)
        return found

    _refuse_nan(fmt, in_shares(work, flat.size))
    return codes.reshape(source.shape)


def decode(fmt: Definition, codes: ArrayLike, scale: ArrayLike) -> NDArray[np.float32]:
    """See ``Format.decode``."""
    given = _as_codes(fmt, codes)
    scales, repeat = _as_scales(scale, given.shape)
    values = fmt.float32_values
    flat = np.ascontiguousarray(given).reshape(-1)
    out = np.empty(flat.shape, np.float32)

    def work(start: int, stop: int) -> None:
        kernels.decode(flat, scales, repeat, values, start, stop, out)

    in_shares(work, flat.size)
    return out.reshape(given.shape)


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
    source = as_float32(x)
    scales, repeat = _as_scales(scale, source.shape)
    rule = _rule(fmt, rules, rounding, overflow, seed)
    result = np.empty(source.shape, np.float32) if out is None else _as_output(out, source.shape)
    flat = np.ascontiguousarray(source).reshape(-1)
    target = result if result.flags.c_contiguous and not _overlaps(flat, result) else np.empty(source.shape, np.float32)
    flat_target = target.reshape(-1)

    def work(start: int, stop: int) -> int:
        found: int = kernels.quantize(
            flat, scales, repeat, rule.parameters, rule.thresholds, rule.level_codes, rule.values, start, stop, flat_target
        )
        return found

    _refuse_nan(fmt, in_shares(work, flat.size))
    if target is not result:
        result[...] = target
    return result


def as_float32(x: ArrayLike) -> NDArray[np.float32]:
    """Return float32 as it is and 16-bit floats widened exactly; refuse everything else."""
    array = np.asarray(x)
    if array.dtype == np.float32:
        return array
    if array.dtype.name in _WIDENED:
        return array.astype(np.float32)
    detail = ": narrowing it first would round twice" if array.dtype == np.float64 else ""
    raise InvalidTypeError(f"x must be float32, float16 or bfloat16, not {array.dtype}{detail}")


def _as_codes(fmt: Definition, codes: ArrayLike) -> NDArray[Any]:
    array = np.asarray(codes)
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"codes of {fmt.name} must be integers, not {array.dtype}")
    if array.size and (np.iinfo(array.dtype).max >= 2**fmt.bits or array.dtype.kind == "i"):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= 2**fmt.bits:
            raise InvalidValueError(f"codes of {fmt.name} must be 0 to {2**fmt.bits - 1}, not {low if low < 0 else high}")
    return array.astype(fmt.code_dtype, copy=False)


def _as_output(out: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = f"{out.dtype} of shape {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InvalidValueError(f"out must be a float32 array of shape {shape}, not {found}")
    if not out.flags.writeable:
        raise InvalidValueError("out must be writable, not read-only")
    return out


def _overlaps(flat: NDArray[np.float32], out: NDArray[np.float32]) -> bool:
    """Whether writing ``out`` in order would change elements of ``flat`` not yet read; each onto itself does not."""
    return np.may_share_memory(flat, out) and flat.ctypes.data != out.ctypes.data


def _as_scales(scale: ArrayLike, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], int]:
    """Return the scales, flat, and how many neighbouring elements share each of them before the next one's turn."""
    with np.errstate(over="ignore"):
        array = np.asarray(scale, dtype=np.float32)
    wrong = ~(np.isfinite(array) & (array > 0))
    if wrong.any():
        raise InvalidValueError(f"scale must be finite and positive, not {array[wrong].flat[0]}")
    if array.size == 1 and array.ndim <= len(shape):
        return array.reshape(-1), 1
    try:
        full = np.broadcast_to(array, shape)
    except ValueError:
        raise InvalidValueError(f"scale must broadcast against the shape {shape}, not have the shape {array.shape}") from None
    padded = (1,) * (len(shape) - array.ndim) + array.shape
    varying = [axis for axis, size in enumerate(padded) if size != 1]
    first, last = varying[0], varying[-1]
    if padded[first : last + 1] == shape[first : last + 1]:
        return np.ascontiguousarray(array).reshape(-1), int(np.prod(shape[last + 1 :], dtype=np.int64))
    return np.ascontiguousarray(full).reshape(-1), 1


def _refuse_nan(fmt: Definition, count: int) -> None:
    if count and not fmt.nan:
        raise InvalidValueError(f"values for {fmt.name} must be numbers, not NaN in {count} elements: the format has no NaN code")


def _rule(fmt: Definition, rules: Rules, rounding: str, overflow: str, seed: int) -> RoundingTable:
    """Return the compiled loops' tables, made once for each format and rounding."""
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    if overflow not in OVERFLOWS:
        raise unknown_name("overflow", overflow, OVERFLOWS)
    ieee = overflow == "ieee" and bool(fmt.nan or fmt.infinities)
    key = f"{rounding} {'ieee' if ieee else 'saturate'}"
    found = rules.get(key)
    if found is None:
        found = _make_rule(fmt, rounding, seed, ieee=ieee)
        if rounding != "stochastic":  # one for each seed would pile up
            rules[key] = found
    return found


def _make_rule(fmt: Definition, rounding: str, seed: int, *, ieee: bool) -> RoundingTable:
    closed_form = fmt.closed_form if rounding == "nearest_even" and not ieee else None
    codes = level_codes(fmt)
    if rounding == "stochastic":
        kind, thresholds = kernels.STOCHASTIC, fmt.float32_values[codes]
    elif closed_form is not None:
        kind, thresholds = _KINDS[closed_form.kind], np.empty(0, np.float32)
    else:
        kind, thresholds = kernels.TABLE, boundaries(fmt, rounding)
    parameters = _parameters(fmt, kind, closed_form, codes, seed)
    if ieee and rounding != "stochastic":
        thresholds, codes = _with_overflow(fmt, rounding, thresholds, codes)
    # padded to a power of two less one, so that the bisection needs no bounds check; nothing reaches an infinite threshold
    # but an infinity, which the padded level codes send to the last level
    size = 2 ** max(1, len(thresholds).bit_length()) - 1
    padded = np.concatenate([thresholds, np.full(size - len(thresholds), np.inf, np.float32)])
    padded_codes = np.concatenate([codes, np.full(size + 1 - min(len(codes), size + 1), codes[-1])])
    return RoundingTable(parameters=parameters, thresholds=padded, level_codes=padded_codes, values=fmt.float32_values)


def _with_overflow(
    fmt: Definition, rounding: str, thresholds: NDArray[np.float32], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Add what lies beyond the largest magnitudes: the infinities, or NaN where there are none."""
    first = overflow_boundary(fmt, rounding)
    negative, positive = fmt.infinities or (fmt.nan[-1], fmt.nan[0])
    thresholds, codes = np.append(thresholds, first), np.append(codes, positive)
    if fmt.signed:  # the mirror image: what does not overflow begins just above the negated boundary
        thresholds = np.insert(thresholds, 0, np.nextafter(-first, np.float32(np.inf)))
        codes = np.insert(codes, 0, negative)
    return thresholds, codes


def _parameters(
    fmt: Definition, kind: int, closed_form: ClosedForm | None, codes: NDArray[np.int64], seed: int
) -> kernels.Parameters:
    zeros = codes[fmt.values[codes] == 0]
    zero = int(zeros[0]) if len(zeros) else -1
    return kernels.Parameters(
        kind=kind,
        low=np.float32(fmt.values[codes[0]]),
        high=np.float32(fmt.values[codes[-1]]),
        bits=fmt.bits,
        mantissa_bits=closed_form.mantissa_bits if closed_form else 0,
        minimum_exponent=closed_form.minimum_exponent if closed_form else 0,
        signed=fmt.signed,
        zero=zero,
        negative_zero=zero if fmt.negative_zero is None else fmt.negative_zero,
        nan=fmt.nan[0] if fmt.nan else -1,
        seed=np.uint64(seed % 2**64),
    )
