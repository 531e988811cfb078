"""How a format is rounded, as the compiled loops want it: made once for each format, rounding and treatment of overflow."""

import operator

import numpy as np
from numpy.typing import NDArray

from formats import kernels
from formats.boundaries import ROUNDINGS, boundaries, level_codes, overflow_boundary
from formats.definition import Definition
from formats.errors import InvalidTypeError, InvalidValueError
from formats.kernels.table import UNSETTLED
from formats.names import unknown_name

OVERFLOWS = ("saturate", "ieee")
_KINDS = {
    "uniform": kernels.UNIFORM,
    "floating": kernels.FLOATING,
    "shortened": kernels.SHORTENED,
    "logarithmic": kernels.LOGARITHMIC,
}
#: how codes are decoded that are encoded by this kind: the bits of a shortened float32 are those of a floating format
_DECODED = {kernels.SHORTENED: kernels.FLOATING}

#: where there is none: of more bits than any code has
NO_CODE = 2**30

#: the rules made so far for one format, by rounding and overflow
Rules = dict[str, kernels.Rule]


def rule(fmt: Definition, rules: Rules, rounding: str, overflow: str, seed: int) -> kernels.Rule:
    """Return the numbers and tables of one rounding; ``seed`` names the sequence that stochastic rounding draws from."""
    if rounding not in ROUNDINGS:
        raise unknown_name("rounding", rounding, ROUNDINGS)
    if overflow not in OVERFLOWS:
        raise unknown_name("overflow", overflow, OVERFLOWS)
    ieee = overflow == "ieee" and bool(fmt.nan or fmt.infinities)
    if ieee and rounding == "stochastic":
        raise InvalidValueError(f"overflow of {fmt.name} with stochastic rounding must be saturate, not ieee")
    key = f"{rounding} {'ieee' if ieee else 'saturate'}"
    if key not in rules:
        rules[key] = _make(fmt, rounding, ieee=ieee)
    found = rules[key]
    return (
        found._replace(numbers=found.numbers._replace(key=np.uint64(_whole(seed) % 2**64))) if rounding == "stochastic" else found
    )


def _whole(seed: int) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise InvalidTypeError(f"seed must be a whole number, not {seed!r}") from None


def _make(fmt: Definition, rounding: str, *, ieee: bool) -> kernels.Rule:
    stochastic = rounding == "stochastic"
    closed = fmt.closed_form if rounding in ("nearest_even", "stochastic") and not ieee else None
    codes = level_codes(fmt)
    if stochastic:
        thresholds = fmt.float32_values[codes[1:]]
    elif closed is not None:
        thresholds = np.empty(0, np.float32)
    else:
        thresholds = boundaries(fmt, rounding)
        if ieee:
            thresholds, codes = _with_overflow(fmt, rounding, thresholds, codes)
    numbers = _numbers(fmt)
    numbers = numbers._replace(stochastic=stochastic, closed=closed is not None and not stochastic)
    if closed is None:
        numbers = numbers._replace(kind=kernels.TABLE)
    one_zero = numbers.zero == numbers.negative_zero
    numbers = numbers._replace(few=closed is None and not stochastic and len(codes) <= kernels.MOST and one_zero)
    return kernels.Rule(numbers, _tables(fmt, numbers, thresholds, codes))


def _tables(
    fmt: Definition, numbers: kernels.Parameters, thresholds: NDArray[np.float32], codes: NDArray[np.int64]
) -> kernels.Tables:
    """Return the arrays that the loops of this rule read; those of other loops are empty."""
    by_head = numbers.kind == kernels.TABLE and not numbers.few
    head_codes, head_values = (
        _heads(fmt, numbers, thresholds, codes) if by_head else (np.empty(0, np.uint16), np.empty(0, np.float32))
    )
    few = kernels.GROUP * (1 if len(codes) <= 1 + kernels.GROUP else 2)
    few_codes = np.pad(codes, (0, 1 + few - len(codes)), mode="edge") if numbers.few else codes[:0]
    padded, padded_codes = _padded(thresholds, codes)
    return kernels.Tables(
        thresholds=padded,
        level_codes=padded_codes,
        head_codes=head_codes,
        head_values=head_values,
        few_thresholds=np.append(thresholds, np.full(few, np.nan, np.float32))[:few] if numbers.few else padded[:0],
        few_values=fmt.float32_values[few_codes],
        few_codes=few_codes.astype(np.int32),
        values=fmt.float32_values,
    )


def _with_overflow(
    fmt: Definition, rounding: str, thresholds: NDArray[np.float32], codes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Add what lies beyond the largest magnitudes: the infinities, or NaN where there are none."""
    negative, positive = fmt.infinities or (fmt.nan[-1], fmt.nan[0])
    first = np.nextafter(-overflow_boundary(fmt, rounding, int(codes[0])), np.float32(np.inf))  # the first that does not overflow
    thresholds, codes = np.append(thresholds, overflow_boundary(fmt, rounding, int(codes[-1]))), np.append(codes, positive)
    if fmt.signed:
        thresholds, codes = np.insert(thresholds, 0, first), np.insert(codes, 0, negative)
    return thresholds, codes


def _heads(
    fmt: Definition, numbers: kernels.Parameters, thresholds: NDArray[np.float32], codes: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return the code and the value that all numbers have whose first 16 bits are the index, or marks where they differ."""
    first = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    levels = np.searchsorted(thresholds, first.view(np.float32), side="right")
    last = np.searchsorted(thresholds, (first | np.uint32(0xFFFF)).view(np.float32), side="right")
    found = codes[levels]
    found[(found == numbers.zero) & (np.arange(2**16) >= 2**15)] = numbers.negative_zero
    exponent_of_nan = (first & np.uint32(0x7F800000)) == 0x7F800000
    settled = (levels == last) & ~exponent_of_nan
    values = np.where(settled, fmt.float32_values[found], np.float32(np.nan))
    return np.where(settled, found, UNSETTLED).astype(np.uint16), values.astype(np.float32)


def _padded(thresholds: NDArray[np.float32], codes: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pad to a power of two less one, so that the bisection needs no bounds check.

    Nothing reaches an infinite threshold but an infinity, which the padded level codes send to the last level.
    """
    size = 2 ** max(1, len(thresholds).bit_length()) - 1
    padded = np.concatenate([thresholds, np.full(size - len(thresholds), np.inf, np.float32)])
    return padded.astype(np.float32), np.concatenate([codes, np.full(max(0, size + 1 - len(codes)), codes[-1])])


def _numbers(fmt: Definition) -> kernels.Parameters:
    """Return what does not depend on the rounding."""
    codes = level_codes(fmt)
    closed = fmt.closed_form
    kind = kernels.TABLE if closed is None else _KINDS[closed.kind]
    decoded_kind, last_regular, irregular = _decoding(fmt, kind, codes)
    zeros = codes[fmt.values[codes] == 0]
    zero = int(zeros[0]) if len(zeros) else -1
    if kind == kernels.UNIFORM and zero != 0:
        decoded_kind = kernels.TABLE  # that loop reads codes as two's complement, without a zero point
    minimum_exponent = closed.minimum_exponent if closed else 0
    first, deepest = np.float32(0), 0
    if kind == kernels.LOGARITHMIC:
        assert closed is not None
        lowest = int(np.argmin(np.where(fmt.values > 0, fmt.values, np.inf)))
        deepest = -int(closed.mantissa_bits * fmt.exponent[lowest] + fmt.root[lowest])
        minimum_exponent = int(fmt.exponent[fmt.significand != 0].min())
        first = np.float32(boundaries(fmt, "nearest_even")[np.flatnonzero(fmt.values[codes] == 0)[0]])
    return kernels.Parameters(
        kind=kind,
        decoded_kind=decoded_kind,
        stochastic=False,
        closed=True,
        few=False,
        low=np.float32(fmt.values[codes[0]]),
        high=np.float32(fmt.values[codes[-1]]),
        bits=fmt.bits,
        mantissa_bits=closed.mantissa_bits if closed else 0,
        minimum_exponent=minimum_exponent,
        first=first,
        deepest=deepest,
        signed=fmt.signed,
        zero=zero,
        negative_zero=zero if fmt.negative_zero is None else fmt.negative_zero,
        nan=fmt.nan[0] if fmt.nan else -1,
        last_regular=last_regular,
        irregular=irregular,
        key=np.uint64(0),
    )


def _decoding(fmt: Definition, kind: int, codes: NDArray[np.int64]) -> tuple[int, int, int]:
    """Return how to decode, the largest magnitude code that is regular, and the one irregular code below it, or ``NO_CODE``.

    Codes of NaN, infinities, numbers that float32 cannot hold and unused codes are irregular; with more than one of them among
    the regular ones all is decoded by table.
    """
    irregular = {*fmt.unused, *fmt.nan, *(fmt.infinities or ())}
    irregular |= set(np.flatnonzero(~np.isfinite(fmt.float32_values)).tolist())
    last = int(codes[-1]) if kind in (kernels.FLOATING, kernels.SHORTENED) else 2**fmt.bits
    magnitude = 2 ** (fmt.bits - 1) - 1 if fmt.signed else 2**fmt.bits - 1
    among = sorted(code for code in irregular if code & magnitude <= last)
    if len(among) > 1:
        return kernels.TABLE, last, NO_CODE
    return _DECODED.get(kind, kind), last, among[0] if among else NO_CODE
