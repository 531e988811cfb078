"""Requantizers against the emulator: every kind, both simulators."""

import itertools
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from formats import registry
from formats.arithmetic.requantize import ROUNDINGS
from formats.format import Format
from hwmodels.fpga.rtl.requantizer import thresholds as comparing
from hwmodels.fpga.rtl.requantizer.levels import encoded, encoded_exactly, ordered_codes, thresholds
from hwmodels.fpga.rtl.requantizer.multiplier import MultiplierRequantizer
from hwmodels.fpga.rtl.requantizer.normalise import NormaliseRequantizer
from hwmodels.fpga.rtl.requantizer.shift import ShiftRequantizer
from hwmodels.fpga.rtl.requantizer.specification import Requantizer
from hwmodels.fpga.rtl.requantizer.thresholds import SearchRequantizer, ThresholdRequantizer
from hwmodels.fpga.simulation import requantizer_stimulus as driving
from hwmodels.fpga.simulation.requantizer_stimulus import requantizer_stimulus
from hwmodels.fpga.simulation.simulators import NotEqualError, available, simulate

icarus = pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
ANY = ("uint2", "uint4", "int3", "e2m1", "ue2m1", "e3m0", "pot3", "post4", "ternary", "binary", "nf4", "ulog2_3")
MINIFLOATS = ("e2m1", "e1m2", "e3m0", "ue2m2", "e4m3", "e5m2")


def scalar(name: str) -> Format:
    return registry.scalar(name)


def designs(bits: int) -> list[Requantizer]:
    made: list[Requantizer] = []
    for name in ANY:
        made += [kind(accumulator_bits=bits, output=scalar(name)) for kind in (ThresholdRequantizer, SearchRequantizer)]
    for name in MINIFLOATS:
        made += [NormaliseRequantizer(accumulator_bits=bits, output=scalar(name), lsb_exponent=e) for e in (-bits, 0, 3)]
    for name, rounding in zip(("int4", "uint3", "int4_narrow", "ternary"), ROUNDINGS, strict=True):
        made.append(ShiftRequantizer(accumulator_bits=bits, output=scalar(name), rounding=rounding, shifts=(0, bits)))
        made.append(
            ShiftRequantizer(accumulator_bits=bits, output=scalar(name), rounding=rounding, shifts=(-3, 4), zero_point=True)
        )
        made.append(ShiftRequantizer(accumulator_bits=bits, output=scalar(name), rounding=rounding, shifts=(2, 5)))
    if bits <= 32:
        shiftings = itertools.cycle((((-31, 0), False), ((-31, 30), True), ((-9, -2), False), ((1, 4), True)))
        for variant, (recipe, name) in itertools.product(
            ("single", "double"), (("star", "int8"), ("star", "uint4"), ("booth", "int8_narrow"), ("rows", "uint4"))
        ):
            output, (shifts, zero_point) = scalar(name), next(shiftings)
            made.append(
                MultiplierRequantizer(
                    accumulator_bits=bits, output=output, variant=variant, recipe=recipe, shifts=shifts, zero_point=zero_point
                )
            )
    return made


def label(design: Requantizer) -> str:
    return "-".join(map(str, (design.name, getattr(design, "shifts", ""), getattr(design, "lsb_exponent", ""))))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw fewer accumulators, and try them all with one set of parameters: for the slow simulator."""
    monkeypatch.setattr(driving, "DRAWN", 40)
    monkeypatch.setattr(driving, "WHOLE_SETS", 1)


@pytest.mark.parametrize("design", designs(6), ids=label)
@pytest.mark.usefixtures("few")
def test_a_requantizer_equals_the_emulator(design: Requantizer, tmp_path: Path) -> None:
    given = requantizer_stimulus(design)
    assert simulate(design, given, tmp_path, "amaranth").compared == given.check.sum() >= 2**6


@icarus
@pytest.mark.parametrize("design", [*designs(13)[::5], *designs(32)[3::7], *designs(48)[2::9]], ids=label)
def test_verilog_of_a_requantizer_equals_the_emulator(design: Requantizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "WHOLE_SETS", 1)
    monkeypatch.setattr(driving, "DRAWN", 200)
    given = requantizer_stimulus(design)
    assert simulate(design, given, tmp_path, "icarus").compared == given.check.sum()


@pytest.mark.parametrize("simulator", sorted({"amaranth", available()}))
@pytest.mark.usefixtures("few")
def test_a_wrong_threshold_and_a_wrong_table_are_found_out(simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = SearchRequantizer(accumulator_bits=6, output=scalar("e2m1"))
    given = requantizer_stimulus(design)
    given.inputs["threshold_2"][given.inputs["threshold_2"] != 0] += 1
    with pytest.raises(NotEqualError, match="requantizer_search_6_e2m1 must equal the emulator, not differ: cycle "):
        simulate(design, given, tmp_path, simulator)
    every = ThresholdRequantizer(accumulator_bits=6, output=scalar("e2m1"))
    given = requantizer_stimulus(every)
    codes = ordered_codes(every.output)
    monkeypatch.setattr(comparing, "ordered_codes", lambda output: codes[::-1])
    with pytest.raises(NotEqualError, match="requantizer_thresholds_6_e2m1 must equal the emulator"):
        simulate(every, given, tmp_path, simulator)


@pytest.mark.parametrize("bits", [6, 16])
def test_narrow_accumulators_are_tried_one_and_all(bits: int) -> None:
    for design in (
        ThresholdRequantizer(accumulator_bits=bits, output=scalar("e2m1")),
        NormaliseRequantizer(accumulator_bits=bits, output=scalar("e4m3")),
        ShiftRequantizer(accumulator_bits=bits, output=scalar("int8")),
        MultiplierRequantizer(accumulator_bits=bits, output=scalar("int8")),
    ):
        tried = requantizer_stimulus(design).inputs["accumulator"]
        assert np.array_equal(np.unique(tried), np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)))


def test_wide_accumulators_are_tried_about_every_threshold() -> None:
    design = ThresholdRequantizer(accumulator_bits=32, output=scalar("uint4"))
    given = requantizer_stimulus(design)
    pairs = zip(given.inputs["accumulator"].tolist(), map(tuple, given.inputs["thresholds"].tolist()), strict=True)
    tried = set(pairs)
    for row in set(map(tuple, given.inputs["thresholds"].tolist())):
        inside = [t for t in row if -(2**31) < t < 2**31 - 1]
        assert all((t + step, row) in tried for t in inside for step in (-1, 0, 1))
    assert {-(2**31), 2**31 - 1} <= {accumulator for accumulator, _ in tried}


def test_saturation_is_reached() -> None:
    for design in (
        ShiftRequantizer(accumulator_bits=12, output=scalar("int4"), shifts=(0, 12)),
        MultiplierRequantizer(accumulator_bits=12, output=scalar("uint4")),
        NormaliseRequantizer(accumulator_bits=12, output=scalar("e2m1"), lsb_exponent=0),
    ):
        given = requantizer_stimulus(design)
        values = design.output.values[given.expected["code"]]
        assert (values.min(), values.max()) == (design.output.minimum, design.output.maximum)


@pytest.mark.parametrize("name", ANY)
@pytest.mark.parametrize("scale", [0.7, 3.0, 900.0])
def test_thresholds_are_the_encoder(name: str, scale: float) -> None:
    output = scalar(name)
    every = np.arange(-(2**9), 2**9)
    found = thresholds(output, scale, 10)
    rank = (every[:, None] >= found).sum(axis=1)
    assert np.array_equal(ordered_codes(output)[rank], output.encode(every.astype(np.float32), np.float32(scale)))
    assert (np.diff(found) >= 0).all()
    assert found.min() >= -(2**9)
    assert found.max() <= 2**9


def test_a_level_that_no_accumulator_reaches_has_a_threshold_above_them_all() -> None:
    assert thresholds(scalar("uint2"), 4.0, 4).tolist() == [3, 6, 8]
    assert thresholds(scalar("int2"), 100.0, 4).tolist() == [-8, -8, 8]


def nearest_even(value: Fraction, output: Format) -> int:
    """Return the code of a minifloat by comparing with every level: the oracle."""
    magnitudes = [Fraction(float(v)) for v in output.values[: 2 ** (output.bits - 1)]]
    size = min(abs(value), magnitudes[-1])
    below = max(code for code, magnitude in enumerate(magnitudes) if magnitude <= size)
    above = min(below + 1, len(magnitudes) - 1)
    low, high = size - magnitudes[below], magnitudes[above] - size
    code = below if low < high or (low == high and below % 2 == 0) else above
    return code | (output.bits and (value < 0) << (output.bits - 1))


@pytest.mark.parametrize("name", ["e2m1", "e4m3"])
def test_wide_accumulators_are_rounded_once(name: str) -> None:
    output = scalar(name)
    draw = np.random.default_rng(0)
    # half-way between two levels, and one beside it, which float32 cannot tell
    levels = output.values[: 2 ** (output.bits - 1)]
    middles = (levels[1:] + levels[:-1]) / 2
    ties = np.ldexp(middles[(middles > 0.5) & (middles < 6)], 39).astype(np.int64)
    wide = np.concatenate([ties, ties - 1, ties + 1, draw.integers(-(2**47), 2**47, 200)])
    lsb_exponent = -39
    expected = [nearest_even(Fraction(int(n)) * Fraction(2) ** lsb_exponent, output) for n in wide]
    assert encoded_exactly(wide, output, lsb_exponent).tolist() == expected
    assert encoded(wide, output, 1.0, lsb_exponent).tolist() != expected  # as float32 rounds first


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="output format must be an integer in two's complement or unsigned, not e2m1"):
        ShiftRequantizer(accumulator_bits=8, output=scalar("e2m1"))
    with pytest.raises(ValueError, match="output format of a normaliser must be a minifloat without Inf and NaN, not int8"):
        NormaliseRequantizer(accumulator_bits=8, output=scalar("int8"))
    with pytest.raises(ValueError, match="accumulator to be multiplied must have at most 32 bits, not 33"):
        MultiplierRequantizer(accumulator_bits=33, output=scalar("int8"))
    with pytest.raises(ValueError, match="accumulator of a requantizer must have 2 to 62 bits, not 63"):
        SearchRequantizer(accumulator_bits=63, output=scalar("int8"))
    with pytest.raises(KeyError, match="rounding must be a known name, not 'nearest_evn'; nearest: nearest_even"):
        ShiftRequantizer(accumulator_bits=8, output=scalar("int8"), rounding="nearest_evn")
    with pytest.raises(KeyError, match="variant must be a known name, not 'triple'"):
        MultiplierRequantizer(accumulator_bits=8, output=scalar("int8"), variant="triple")
    with pytest.raises(ValueError, match=r"shifts must be -31 to 30 in ascending order, not \(0, 31\)"):
        MultiplierRequantizer(accumulator_bits=8, output=scalar("int8"), shifts=(0, 31))
