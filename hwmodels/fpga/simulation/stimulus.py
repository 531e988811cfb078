"""What a multiply-accumulate unit is driven with, and the sums that the emulator expects of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.matmul import matmul
from formats.format import Format
from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.simulation.vectors import Stimulus, joined

#: pairs of codes with at most this many bits are tried one and all
EXHAUSTIVE_BITS = 16
#: up to as many pairs, every lane sees them all; beyond, the lanes share them out, and every lane sees as many drawn ones
PAIRS_IN_EVERY_LANE = 2**10
#: most cycles of one sequence
LONGEST_SEQUENCE = 4096
#: sums of a sequence that are compared where each costs the emulator a product of its own
CHECKPOINTS = 8


def stimulus(unit: MacUnit, seed: int = 0) -> Stimulus:
    """Return all pairs of codes, then sequences that reach the accumulator's limits, and random ones."""
    draw = np.random.default_rng(seed)
    return joined([_pairs(unit, draw), *_sequences(unit, draw)])


def used_codes(fmt: Format) -> NDArray[np.int64]:
    """Return the codes that stand for finite values."""
    return np.flatnonzero(np.isfinite(fmt.values))


def products(unit: MacUnit) -> tuple[NDArray[Any], ...]:
    """Return the emulator's product of every pair of used codes, by code: shape (weight codes, activation codes)."""
    w, a = used_codes(unit.weight), used_codes(unit.activation)
    found = _integers(unit, a[:, None], w[None, :], Accumulator.exact())
    tables = []
    for part in found:
        table = np.zeros((2**unit.weight.bits, 2**unit.activation.bits), part.dtype)
        table[np.ix_(w, a)] = part.T
        tables.append(table)
    return tuple(tables)


def _integers(
    unit: MacUnit, activations: NDArray[np.int64], weights: NDArray[np.int64], accumulator: Accumulator
) -> tuple[NDArray[Any], ...]:
    """Return the accumulators of the emulator's matrix product (M, K) x (K, N)."""
    a, w = activations.astype(unit.activation.code_dtype), weights.astype(unit.weight.code_dtype)
    found = matmul(a, unit.activation, w, unit.weight, accumulator).to_integers()
    return found if isinstance(found, tuple) else (found,)


def _pairs(unit: MacUnit, draw: np.random.Generator) -> Stimulus:
    """Every pair of codes, each lane another one at a time; every cycle starts a new sum."""
    w, a = used_codes(unit.weight), used_codes(unit.activation)
    count = len(w) * len(a)
    drawn = draw.integers(count, size=(PAIRS_IN_EVERY_LANE, unit.lanes))
    if unit.weight.bits + unit.activation.bits > EXHAUSTIVE_BITS:
        pairs = drawn
    elif count > PAIRS_IN_EVERY_LANE:
        shared = np.resize(draw.permutation(count), (-(-count // unit.lanes), unit.lanes))
        pairs = np.concatenate([shared, drawn])
    else:
        pairs = np.stack([draw.permutation(count) for _ in range(unit.lanes)], axis=1)
    weights, activations = w[pairs // len(a)], a[pairs % len(a)]
    tables = products(unit)
    sums = [_accumulated(unit, table[weights, activations]) for table in tables]
    every = np.ones(len(weights), np.bool_)
    return _stimulus(weights, activations, every, every, every, sums)


def _accumulated(unit: MacUnit, lanes: NDArray[Any]) -> NDArray[Any]:
    """Return the register after one cycle from 0; as the emulator adds, in order of the lanes."""
    if unit.accumulator.kind == "exact":
        return np.asarray(lanes.sum(axis=1))
    half = 1 << (unit.accumulator_bits - 1)
    total = np.zeros(len(lanes), object)
    for lane in range(lanes.shape[1]):
        total = total + lanes[:, lane]
        total = np.clip(total, -half, half - 1) if unit.accumulator.overflow == "saturate" else (total + half) % (2 * half) - half
    return total


def _sequences(unit: MacUnit, draw: np.random.Generator) -> list[Stimulus]:
    """Dot products as long as the unit is made for: the largest, the smallest, there and back, and random ones."""
    tables = products(unit)
    cycles = max(min(unit.dot_length // unit.lanes, LONGEST_SEQUENCE), 1)
    made = []
    for table in tables:
        highest, lowest = (np.unravel_index(pick(table), table.shape) for pick in (np.argmax, np.argmin))
        shape = (cycles, unit.lanes)
        up, down = (np.broadcast_to(code, shape) for code in (np.int64(highest[0]), np.int64(lowest[0])))
        with_up, with_down = (np.broadcast_to(code, shape) for code in (np.int64(highest[1]), np.int64(lowest[1])))
        turn = np.arange(cycles)[:, None] < cycles // 2
        made += [(up, with_up), (down, with_down), (np.where(turn, up, down), np.where(turn, with_up, with_down))]
    w, a = used_codes(unit.weight), used_codes(unit.activation)
    made += [(draw.choice(w, (cycles, unit.lanes)), draw.choice(a, (cycles, unit.lanes))) for _ in range(2)]
    stimuli = [_sequence(unit, weights, activations, np.ones(cycles, np.bool_)) for weights, activations in made]
    halting = draw.random(2 * cycles) < 0.5
    halting[0] = True
    weights, activations = (draw.choice(codes, (2 * cycles, unit.lanes)) for codes in (w, a))
    return [*stimuli, _sequence(unit, weights, activations, halting)]


def _sequence(unit: MacUnit, weights: NDArray[np.int64], activations: NDArray[np.int64], enable: NDArray[np.bool_]) -> Stimulus:
    """One dot product over the enabled cycles, which are cut off where it would be longer than the unit is made for."""
    allowed = max(unit.dot_length // unit.lanes, 1)
    enable = enable & (np.cumsum(enable) <= allowed)
    cycles = len(enable)
    last = np.flatnonzero(enable)[-1]
    marks = set(np.linspace(0, last, CHECKPOINTS).astype(int)) | {cycles - 1}
    check = np.isin(np.arange(cycles), list(marks))
    expected = [np.zeros(cycles, object) for _ in range(1 + unit.has_root)]
    for cycle in np.flatnonzero(check):
        taken = enable[: cycle + 1]
        a, w = activations[: cycle + 1][taken].reshape(1, -1), weights[: cycle + 1][taken].reshape(-1, 1)
        for sums, found in zip(expected, _integers(unit, a, w, unit.accumulator), strict=True):
            sums[cycle] = int(found[0, 0])
    return _stimulus(weights, activations, np.arange(cycles) == 0, enable, check, expected)


def _stimulus(
    weights: NDArray[np.int64],
    activations: NDArray[np.int64],
    first: NDArray[np.bool_],
    enable: NDArray[np.bool_],
    check: NDArray[np.bool_],
    sums: list[NDArray[Any]],
) -> Stimulus:
    """Return a stimulus of codes of shape (cycles, lanes), and sums, even and, where there is a root, odd, of shape (cycles,)."""
    return Stimulus(
        inputs={"enable": enable, "first": first, "weights": weights, "activations": activations},
        expected=dict(zip(("sum", "sum_odd"), sums, strict=False)),
        check=check,
    )
