"""Multiply-accumulate units against the emulator: every recipe, kinds of formats, kinds of accumulators, both simulators."""

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from formats import registry
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.matmul import matmul
from formats.errors import InvalidValueError
from hwmodels.fpga.rtl import decode
from hwmodels.fpga.rtl import unit as units
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.rtl.recipes import RECIPES, dsp_recipes, fabric_recipes
from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.simulation.simulators import NotEqualError, available, simulate
from hwmodels.fpga.simulation.stimulus import products, stimulus

#: weights and activations of every family; narrow, so that Amaranth's simulator sees all pairs of codes
PAIRS = [
    ("int2", "uint2"),
    ("int3", "int3"),
    ("e2m1", "int2"),
    ("e2m1", "ue1m1"),
    ("e2m0", "e1m1"),
    ("pot3", "uint2"),
    ("pot4", "pot3"),
    ("post3", "int2"),
    ("post3", "post3"),
    ("post4", "e2m1"),
    ("ternary", "uint3"),
    ("binary", "int3"),
    ("binary", "binary"),
    ("nf4", "uint1"),
    ("ulogsqrt2_3", "int3"),
]
#: wider ones, for Icarus
WIDE = [("int5", "uint6"), ("e1m4", "e2m3"), ("pot5", "e2m3"), ("post5", "e3m2"), ("e2m1", "int8")]
ACCUMULATORS = ("exact", "fixed:6", "fixed:6:wrap")


def made(weight: str, activation: str, recipe: str, accumulator: str = "exact", lanes: int = 2, dot_length: int = 8) -> MacUnit:
    return MacUnit(
        weight=registry.scalar(weight),
        activation=registry.scalar(activation),
        accumulator=Accumulator.parse(accumulator),
        dot_length=dot_length,
        lanes=lanes,
        recipe=RECIPES[recipe],
    )


def recipes(weight: str, activation: str) -> list[str]:
    readings = read(registry.scalar(weight)), read(registry.scalar(activation))
    return list(dict.fromkeys(recipe.name for recipe in (*fabric_recipes(*readings), *dsp_recipes(*readings))))


UNITS = [(*pair, recipe) for pair in PAIRS for recipe in recipes(*pair)]


def test_every_recipe_is_tried() -> None:
    tried = {recipe for *_, recipe in UNITS} | {recipe for pair in WIDE for recipe in recipes(*pair)}
    assert tried == set(RECIPES)


@pytest.mark.parametrize(("weight", "activation", "recipe"), UNITS)
def test_a_unit_equals_the_emulator(weight: str, activation: str, recipe: str, tmp_path: Path) -> None:
    for accumulator in ACCUMULATORS:
        unit = made(weight, activation, recipe, accumulator)
        given = stimulus(unit)
        assert simulate(unit, given, tmp_path, "amaranth").compared == given.check.sum()


@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize(("weight", "activation"), [*WIDE, PAIRS[6]])
def test_verilog_equals_the_emulator(weight: str, activation: str, tmp_path: Path) -> None:
    accumulators = ("exact", "fixed:12", "fixed:12:wrap")
    for recipe, accumulator in zip(recipes(weight, activation), itertools.cycle(accumulators), strict=False):
        unit = made(weight, activation, recipe, accumulator, lanes=3, dot_length=96)
        given = stimulus(unit)
        found = simulate(unit, given, tmp_path, "icarus")
        assert (found.simulator, found.compared) == ("icarus", given.check.sum())


@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
def test_all_pairs_of_eight_bits_are_shared_out_to_the_lanes(tmp_path: Path) -> None:
    unit = made("int8", "e4m3", "shift-fill", lanes=12, dot_length=96)
    given = stimulus(unit)
    pairs = given.inputs["weights"].astype(int) * 256 + given.inputs["activations"]
    assert np.array_equal(np.unique(pairs), np.arange(2**16))
    assert simulate(unit, given, tmp_path, "icarus").compared > 2**16 // 12


@pytest.mark.skipif(not shutil.which("iverilog"), reason="Icarus Verilog is not installed")
def test_both_simulators_give_the_same_verdict(tmp_path: Path) -> None:
    unit = made("post3", "e2m1", "shift-signed", "fixed:7")
    given = stimulus(unit)
    assert {simulate(unit, given, tmp_path, name).compared for name in ("icarus", "amaranth")} == {given.check.sum()}
    given.expected["sum_odd"][np.flatnonzero(given.check)[-1]] += 1
    for name in ("icarus", "amaranth"):
        with pytest.raises(NotEqualError, match=f"cycle {np.flatnonzero(given.check)[-1]}: "):
            simulate(unit, given, tmp_path, name)


def test_stimuli_hold_every_pair_in_every_lane_and_the_emulators_sums() -> None:
    unit = made("e2m1", "int3", "shift-tree")
    given = stimulus(unit)
    pairs = 2 ** (unit.weight.bits + unit.activation.bits)
    for lane in range(unit.lanes):
        codes = given.inputs["weights"][:pairs, lane] * 8 + given.inputs["activations"][:pairs, lane]
        assert sorted(codes) == list(range(pairs))
    integers = read(unit.weight).integer, read(unit.activation).integer
    for cycle in range(pairs):
        codes = zip(given.inputs["weights"][cycle], given.inputs["activations"][cycle], strict=True)
        assert given.expected["sum"][cycle] == sum((integers[0][w] or 0) * (integers[1][a] or 0) for w, a in codes)


def test_a_sequence_is_a_dot_product_of_the_emulator() -> None:
    unit = made("e2m1", "int3", "shift-tree", "fixed:6", dot_length=16)
    given = stimulus(unit)
    start = int(np.flatnonzero(given.inputs["first"])[-1])  # the last sequence, which halts now and then
    end = len(given) - 1
    taken = np.arange(start, end + 1)[given.inputs["enable"][start:]]
    w, a = (given.inputs[name][taken].reshape(-1) for name in ("weights", "activations"))
    found = matmul(
        a[None].astype(np.uint8), unit.activation, w[:, None].astype(np.uint8), unit.weight, Accumulator.fixed(6)
    ).to_integers()
    assert not given.inputs["enable"][start:].all()
    assert given.expected["sum"][end] == found[0, 0]


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_limits_are_reached(overflow: str) -> None:
    unit = made("int3", "int3", "fixed-star", f"fixed:6:{overflow}")
    given = stimulus(unit)
    sums = given.expected["sum"][given.check]
    assert (sums.min(), sums.max()) == (-32, 31) if overflow == "saturate" else sums.min() < -16
    exact = products(unit)[0]
    held = exact[given.inputs["weights"], given.inputs["activations"]].sum(axis=1)
    first = given.check & given.inputs["first"]
    beyond = first & ((held > 31) | (held < -32))
    expected = np.clip(held, -32, 31) if overflow == "saturate" else (held + 32) % 64 - 32
    long = stimulus(made("int3", "int3", "fixed-star", f"fixed:5:{overflow}"))
    assert beyond.any() or (long.expected["sum"] != given.expected["sum"]).any()
    if overflow == "wrap":
        assert (given.expected["sum"][first] == expected[first]).all()


def test_an_exact_accumulator_is_reached_to_its_last_bit() -> None:
    unit = made("int3", "int3", "fixed-star")
    sums = stimulus(unit).expected["sum"]
    assert sums.max() == 8 * 16
    assert 2 ** (unit.accumulator_bits - 2) <= sums.max() < 2 ** (unit.accumulator_bits - 1)


@pytest.mark.parametrize("simulator", sorted({"amaranth", available()}))
def test_a_broken_unit_is_found_out(simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = made("e2m1", "int3", "magnitude-star")
    table = decode._table

    def wrong(m: Any, code: Any, entries: tuple[int | None, ...], bits: int) -> Any:
        return table(m, code, (*entries[:-1], (entries[-1] or 0) ^ 1), bits)

    monkeypatch.setattr(decode, "_table", wrong)
    with pytest.raises(NotEqualError, match=re.escape(f"{unit.name} must equal the emulator, not differ: cycle ")):
        simulate(unit, stimulus(unit), tmp_path, simulator)


@pytest.mark.parametrize("simulator", sorted({"amaranth", available()}))
def test_a_missing_enable_is_found_out(simulator: str, tmp_path: Path) -> None:
    unit = made("int2", "uint2", "fixed-star")
    given = stimulus(unit)
    given.inputs["enable"][:] = True  # the expected sums are of the stimulus as it was
    with pytest.raises(NotEqualError):
        simulate(unit, given, tmp_path, simulator)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="lanes and dot length must be at least 1, not 0 and 8"):
        made("int2", "int2", "fixed-star", lanes=0)
    with pytest.raises(InvalidValueError, match="accumulator of a generated unit must be exact or fixed, not float32"):
        made("int2", "int2", "fixed-star", "float32")
    message = f"accumulator of e9m1 x e9m1 must have at most {units.WIDEST_ACCUMULATOR} bits, not 1028: take a fixed one"
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        made("e9m1", "e9m1", "shift-tree")


def test_an_unknown_simulator_is_named(tmp_path: Path) -> None:
    unit = made("int2", "int2", "fixed-star")
    with pytest.raises(KeyError, match="simulator must be a known name, not 'icarius'; nearest: icarus"):
        simulate(unit, stimulus(unit), tmp_path, "icarius")
