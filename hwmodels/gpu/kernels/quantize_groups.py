"""Groups of floats to codes, with scales that are given or found in the same pass, as Triton code."""

import triton
import triton.language as tl

from hwmodels.gpu.kernels.dividing import divisor, quotient
from hwmodels.gpu.kernels.encoding import as_bits, as_float, constant, encoded, floating_level, floating_steps
from hwmodels.gpu.kernels.weight_product import wide

#: where scales come from: given; the largest magnitude over a level; a power of two, or a small float, for a block format
GIVEN, ABSMAX, POWER = tl.constexpr("given"), tl.constexpr("absmax"), tl.constexpr("power")


@triton.jit
def _count(flags, found):  # type: ignore[no-untyped-def]
    """Add how many there are to the counter, without a word where there are none."""
    count = tl.sum(tl.sum(found.to(tl.int32), axis=1), axis=0)
    tl.atomic_add(flags, count, mask=count > 0)


@triton.jit
def _power_scale(largest, BELOW: tl.constexpr, UNIT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the E8M0 code of a block and what it stands for: floor(log2) of the largest magnitude is read from its bits."""
    code = tl.minimum(tl.maximum((largest >> 23) - BELOW, 0), 254)
    code = tl.where(largest == 0, 0, code)
    field = code + UNIT
    subnormal = (1 << 22) >> (-field & 31)  # of float32, where the power of two is below its normal numbers
    return code, as_float(tl.where(field >= 1, field << 23, subnormal))


@triton.jit
def _ratio_scale(  # type: ignore[no-untyped-def]
    largest, tensor, reach, LOWEST: tl.constexpr, HIGHEST: tl.constexpr, MANTISSA: tl.constexpr, FIRST_NORMAL: tl.constexpr,
):  # fmt: skip
    """Return the E4M3 code of a block and what it stands for, the tensor's scale included; never zero."""
    ratio = tl.where(largest == 0, 1.0, tl.div_rn(as_float(largest), reach))
    ratio = tl.minimum(tl.maximum(ratio, constant(LOWEST, largest)), constant(HIGHEST, largest))
    bits = as_bits(ratio)
    return floating_steps(bits, MANTISSA, FIRST_NORMAL), floating_level(bits, MANTISSA, FIRST_NORMAL) * tensor


@triton.jit
def _tile(pointer, row, part, within, number, groups, length, group):  # type: ignore[no-untyped-def]
    """Return float32 elements of groups, (groups, elements), where they lie, and which of them there are."""
    place = part[:, None] * group + within[None, :]
    inside = (number < groups)[:, None] & (within < group)[None, :] & (place < length)
    place = row.to(tl.int64)[:, None] * length + place
    return wide(tl.load(pointer + place, mask=inside, other=0.0)), place, inside


@triton.jit
def _largest(x, flags, SIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the bits of the largest number of each group that the format has to hold, and note what is not finite."""
    bits = as_bits(x)
    magnitude = bits & 0x7FFFFFFF  # NaN is larger than infinity here, infinity than all else
    if SIGNED:
        largest = tl.max(magnitude, axis=1)
        _count(flags, (largest >= 0x7F800000)[:, None])
    else:
        _count(flags, magnitude >= 0x7F800000)
        largest = tl.max(tl.maximum(bits, 0), axis=1)
    return largest


@triton.jit
def quantize_groups(  # type: ignore[no-untyped-def]
    x_pointer, codes_pointer, scales_pointer, flags, thresholds, level_codes, tensor, reach,
    groups, per_row, length, group, scale_rows, scale_groups,
    SCALES: tl.constexpr, BELOW: tl.constexpr, UNIT: tl.constexpr, LOWEST: tl.constexpr, HIGHEST: tl.constexpr,
    SCALE_MANTISSA: tl.constexpr, SCALE_FIRST: tl.constexpr, LEVEL: tl.constexpr,
    KIND: tl.constexpr, BITS: tl.constexpr, SIGNED: tl.constexpr, MANTISSA: tl.constexpr, FIRST_NORMAL: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, FIRST: tl.constexpr, ZERO: tl.constexpr, NEGATIVE_ZERO: tl.constexpr,
    NAN: tl.constexpr, THRESHOLDS: tl.constexpr, EXACT: tl.constexpr, GROUPS: tl.constexpr, SIZE: tl.constexpr,
    PIECES: tl.constexpr,
):  # fmt: skip
    """Encode ``GROUPS`` groups, ``SIZE`` elements of each at a time.

    Where scales are given each program encodes one piece of the groups. Where they are found it encodes all ``PIECES`` of them: a
    group of one piece is read once, a longer one again after its scale is known. ``EXACT`` divides each number: for formats whose
    levels ``dividing`` does not reach.
    """
    pieces = tl.cdiv(group, SIZE) if SCALES == GIVEN else 1
    number = tl.program_id(0) // pieces * GROUPS + tl.arange(0, GROUPS)
    row, part = number // per_row, number % per_row
    within = tl.program_id(0) % pieces * SIZE + tl.arange(0, SIZE)
    x, place, inside = _tile(x_pointer, row, part, within, number, groups, length, group)
    if SCALES == GIVEN:
        scale = tl.load(scales_pointer + row * scale_rows + part * scale_groups, mask=number < groups, other=1.0)
        if NAN < 0:
            _count(flags, x != x)
    else:
        largest = _largest(x, flags, SIGNED)
        for piece in range(1, PIECES):
            more, _, _ = _tile(x_pointer, row, part, within + piece * SIZE, number, groups, length, group)
            largest = tl.maximum(largest, _largest(more, flags, SIGNED))
        if SCALES == ABSMAX:
            scale = tl.maximum(tl.div_rn(as_float(largest), constant(LEVEL, largest)), constant(0x00800000, largest))
            scale = tl.where(largest == 0, 1.0, scale)
            stored = scale
        elif SCALES == POWER:
            scale_code, scale = _power_scale(largest, BELOW, UNIT)
            stored = scale_code.to(tl.uint8)
        else:
            scale_code, scale = _ratio_scale(largest, tensor, reach, LOWEST, HIGHEST, SCALE_MANTISSA, SCALE_FIRST)
            stored = scale_code.to(tl.uint8)
        tl.store(scales_pointer + number, stored, mask=number < groups)
    # a scale that is found leaves no quotient far above the largest level
    power, near_one, reciprocal = divisor(scale)
    for piece in range(0, PIECES):
        if PIECES > 1:
            x, place, inside = _tile(x_pointer, row, part, within + piece * SIZE, number, groups, length, group)
        if EXACT:
            q = tl.div_rn(x, tl.broadcast_to(scale[:, None], (GROUPS, SIZE)))
        else:
            q = quotient(x, power[:, None], near_one[:, None], reciprocal[:, None], SCALES != GIVEN, ZERO != NEGATIVE_ZERO)
        code = encoded(
            q, thresholds, level_codes, KIND, BITS, SIGNED, MANTISSA, FIRST_NORMAL, LOW, HIGH, FIRST, ZERO,
            NEGATIVE_ZERO, NAN, THRESHOLDS,
        )  # fmt: skip
        tl.store(codes_pointer + place, code.to(tl.uint8), mask=inside)
