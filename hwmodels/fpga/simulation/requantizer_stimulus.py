"""What a requantizer is driven with, and the codes that the emulator expects of it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic.requantize import FRACTION, requantize, requantize_by_shift
from formats.format import Format
from hwmodels.fpga.rtl.requantizer.levels import encoded, encoded_exactly, thresholds
from hwmodels.fpga.rtl.requantizer.multiplier import MultiplierRequantizer
from hwmodels.fpga.rtl.requantizer.normalise import NormaliseRequantizer
from hwmodels.fpga.rtl.requantizer.shift import ShiftRequantizer
from hwmodels.fpga.rtl.requantizer.specification import Requantizer
from hwmodels.fpga.rtl.requantizer.thresholds import SearchRequantizer, ThresholdRequantizer
from hwmodels.fpga.rtl.requantizer.whole import whole_range
from hwmodels.fpga.simulation.vectors import Stimulus, joined

Numbers = NDArray[np.int64]
#: accumulators up to this width are tried one and all
EXHAUSTIVE_BITS = 16
#: drawn accumulators for each set of parameters, evenly and again evenly by their widths
DRAWN = 1024
#: sets of parameters, the first ones tried with every accumulator
SETS, WHOLE_SETS = 6, 2


def requantizer_stimulus(design: Requantizer, seed: int = 0) -> Stimulus:
    """Return every accumulator where they are few, limits, neighbours of thresholds and drawn ones, for several parameters."""
    make: dict[type[Requantizer], Callable[..., Stimulus]] = {
        ShiftRequantizer: _shift,
        MultiplierRequantizer: _multiplier,
        NormaliseRequantizer: _normalise,
        ThresholdRequantizer: _thresholds,
        SearchRequantizer: _search,
    }
    return make[type(design)](design, np.random.default_rng(seed))


def accumulators(bits: int, draw: np.random.Generator, near: Numbers, *, whole: bool) -> Numbers:
    """Return accumulators of ``bits`` bits: all, or the limits, those about ``near``, and drawn ones."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if bits <= EXHAUSTIVE_BITS and whole:
        return np.arange(low, high + 1)
    limits = np.array([low, low + 1, -1, 0, 1, high - 1, high])
    drawn = draw.integers(low, high, DRAWN, endpoint=True)
    about = (near[:, None] + np.arange(-1, 2)).ravel()
    every = np.concatenate([limits, about[(about >= low) & (about <= high)], drawn, drawn >> draw.integers(0, bits, DRAWN)])
    return draw.permutation(every)


def _every(given: dict[str, NDArray[np.int64]], codes: NDArray[np.int64]) -> Stimulus:
    return Stimulus(inputs=given, expected={"code": codes}, check=np.ones(len(codes), np.bool_))


def _zero_points(output: Format, size: int, draw: np.random.Generator) -> Numbers:
    low, high = whole_range(output)
    return draw.choice([low, high, *draw.integers(low, high, 5, endpoint=True)], size)


def _shift(design: ShiftRequantizer, draw: np.random.Generator) -> Stimulus:
    """Every shift, with the accumulators about the places where the rounded number changes."""
    parts = []
    for index, shift in enumerate(draw.permutation(np.arange(design.shifts[0], design.shifts[1] + 1))):
        halves = np.arange(-3, 4) << max(int(shift) - 1, 0)
        numbers = accumulators(design.accumulator_bits, draw, halves, whole=index < WHOLE_SETS)
        zero = _zero_points(design.output, len(numbers), draw) if design.zero_point else np.zeros(len(numbers), np.int64)
        codes = requantize_by_shift(numbers, shift, design.output, zero, rounding=design.rounding)
        given = {"accumulator": numbers, "places": np.full(len(numbers), shift - design.shifts[0])}
        parts.append(_every(given | ({"zero_point": zero} if design.zero_point else {}), codes.astype(np.int64)))
    return joined(parts)


def _multiplier(design: MultiplierRequantizer, draw: np.random.Generator) -> Stimulus:
    """One factor and shift for all accumulators, then another of each in every cycle."""
    low, high = design.shifts
    factors = [2**30, 2**FRACTION - 1, 0, 1, *draw.integers(2**30, 2**FRACTION, SETS)]
    fitting = design.output.bits - design.accumulator_bits
    parts = []
    for index, factor in enumerate(factors[::-1]):
        shift = int(np.clip(fitting + draw.integers(-1, 3), low, high))
        numbers = accumulators(design.accumulator_bits, draw, np.zeros(1, np.int64), whole=index < WHOLE_SETS)
        parts.append(_multiplied(design, numbers, np.full(len(numbers), factor), np.full(len(numbers), shift), draw))
    for _ in range(2):
        numbers = accumulators(design.accumulator_bits, draw, np.zeros(1, np.int64), whole=False)
        parts.append(
            _multiplied(
                design, numbers, draw.choice(factors, len(numbers)), draw.integers(low, high, len(numbers), endpoint=True), draw
            )
        )
    return joined(parts)


def _multiplied(
    design: MultiplierRequantizer, numbers: Numbers, factor: Numbers, shift: Numbers, draw: np.random.Generator
) -> Stimulus:
    zero = _zero_points(design.output, len(numbers), draw) if design.zero_point else np.zeros(len(numbers), np.int64)
    codes = requantize(numbers, factor, shift, design.output, zero, variant=design.variant)
    given = {"accumulator": numbers, "multiplier": factor, "places": design.shifts[1] - shift}
    return _every(given | ({"zero_point": zero} if design.zero_point else {}), codes.astype(np.int64))


def _normalise(design: NormaliseRequantizer, draw: np.random.Generator) -> Stimulus:
    """Accumulators about every boundary of two levels; half-way cases of wide ones come from the emulator's own bisection."""
    near = thresholds(design.output, 1.0, design.accumulator_bits, design.lsb_exponent)
    numbers = accumulators(design.accumulator_bits, draw, near, whole=True)
    return _every({"accumulator": numbers}, encoded_exactly(numbers, design.output, design.lsb_exponent))


def _scales(design: Requantizer, draw: np.random.Generator) -> list[float]:
    """Scales at which the largest level is about the largest accumulator, far below it, and far above it."""
    largest = float(np.nanmax(np.abs(design.output.values)))
    fitting = 2.0 ** (design.accumulator_bits - 1) / largest
    around = [fitting * float(factor) for factor in draw.uniform(0.05, 0.9, SETS - 2)]
    return [float(np.float32(scale)) for scale in (*around, fitting / 2 ** (design.accumulator_bits / 2), 4 * fitting)]


def _thresholds(design: ThresholdRequantizer, draw: np.random.Generator) -> Stimulus:
    parts = []
    for index, scale in enumerate(_scales(design, draw)):
        found = thresholds(design.output, scale, design.accumulator_bits)
        numbers = accumulators(design.accumulator_bits, draw, found, whole=index < WHOLE_SETS)
        given = {"accumulator": numbers, "thresholds": np.broadcast_to(found, (len(numbers), len(found)))}
        parts.append(_every(given, encoded(numbers, design.output, scale)))
    return joined(parts)


def _search(design: SearchRequantizer, draw: np.random.Generator) -> Stimulus:
    """Thresholds come at the addresses that the search must ask for, and these are compared, too."""
    parts = [_searched(design, scale, index < WHOLE_SETS, draw) for index, scale in enumerate(_scales(design, draw))]
    return joined(parts)


def _searched(design: SearchRequantizer, scale: float, whole: bool, draw: np.random.Generator) -> Stimulus:
    found = thresholds(design.output, scale, design.accumulator_bits)
    numbers = accumulators(design.accumulator_bits, draw, found, whole=whole)
    stages, cycles = design.stages, len(numbers) + design.stages - 1
    padded = np.append(found, np.full(2**stages - 1 - len(found), 2 ** (design.accumulator_bits - 1)))
    rank = np.searchsorted(found, numbers, side="right")
    given = {"accumulator": _delayed(numbers, 0, cycles)}
    expected = {}
    for stage in range(stages):
        known = rank >> (stages - stage)
        middle = ((2 * known + 1) << (stages - stage - 1)) - 1
        given[f"threshold_{stage}"] = _delayed(padded[middle], stage, cycles)
        if stage:
            expected[f"address_{stage}"] = _delayed(known, stage - 1, cycles)
    expected["code"] = _delayed(encoded(numbers, design.output, scale), stages - 1, cycles)
    full = (np.arange(cycles) >= stages - 1) & (np.arange(cycles) < len(numbers))
    return Stimulus(inputs=given, expected=expected, check=full)


def _delayed(numbers: Numbers, by: int, cycles: int) -> Numbers:
    """Return ``numbers`` after ``by`` cycles of nothing in particular, and before more of it."""
    late = np.zeros(cycles, np.int64)
    late[by : by + len(numbers)] = numbers
    return late
