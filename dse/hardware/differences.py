"""Where whole-number arithmetic differs from fake quantization, and by how much: operand by operand, and in the predictions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.assignment import Assignment
from dse.hardware.accumulate import Accumulate, Operand
from dse.hardware.compiling import compile_program
from dse.hardware.program import BATCH, Program
from dse.hardware.steps import Compare, Rescale
from dse.network import Filling, Network, Place, Role
from dse.quantize import Preparation
from formats.arithmetic.products import levels


@dataclass(frozen=True, kw_only=True)
class OperandDifference:
    """How the codes of one quantized operand differ between the two arithmetics, over some samples."""

    layer: str
    role: Role
    format_name: str
    #: how hardware makes the codes: ``input``, ``shift``, ``division`` (after a mean), ``multiplier`` or ``thresholds``
    requantizer: str
    #: share of values with another code
    share: float
    #: largest difference of two values, in LSBs of the format
    largest: float


@dataclass(frozen=True, kw_only=True)
class AccumulatorUse:
    """What a layer's accumulator has to hold."""

    layer: str
    accumulator: str
    #: width of two's complement in which no input overflows
    bits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """An assignment in both arithmetics on the same samples."""

    program: Program
    #: float32 of shape (N, classes)
    exact_logits: NDArray[np.float32]
    fake_logits: NDArray[np.float32]
    operands: tuple[OperandDifference, ...]
    accumulators: tuple[AccumulatorUse, ...]

    @property
    def largest(self) -> float:
        """Largest difference of a logit."""
        return float(np.abs(self.exact_logits - self.fake_logits).max())

    @property
    def equal_predictions(self) -> int:
        """On how many samples both predict the same class."""
        return int((self.exact_logits.argmax(axis=1) == self.fake_logits.argmax(axis=1)).sum())


def compare(preparation: Preparation, assignment: Assignment, images: NDArray[np.float32]) -> Comparison:
    """Run an assignment in both arithmetics, both with biases on the accumulators' LSBs, on (N, …) samples."""
    assignment = assignment.in_whole_numbers()
    program = compile_program(preparation, assignment)
    prepared = preparation.after(assignment.steps)
    fillings = prepared.fillings(assignment)
    totals = {key: _Total() for key in program.operands}
    exact, fake = [], []
    for first in range(0, len(images), BATCH):
        part = images[first : first + BATCH]
        logits, seen = _fake(prepared.network, fillings, part)
        values = program.trace(part, tuple({value.name for value, _, _ in program.operands.values()}))
        for key, (value, fmt, scale) in program.operands.items():
            totals[key].add(_reals(Operand(format=fmt), values[value.name]), seen[key].astype(np.float64) / np.float32(scale))
        exact.append((values[program.output.name].numpy() * program.output.unit).astype(np.float32))
        fake.append(logits)
    makers = {each.output: each.step for each in program.instructions}
    return Comparison(
        program=program,
        exact_logits=np.concatenate(exact),
        fake_logits=np.concatenate(fake),
        operands=tuple(_difference(program, makers, key, totals[key]) for key in program.operands),
        accumulators=tuple(_uses(program)),
    )


class _Total:
    """Differences so far."""

    def __init__(self) -> None:
        self.count, self.differing, self.largest = 0, 0, 0.0

    def add(self, exact: NDArray[np.float64], fake: NDArray[np.float64]) -> None:
        distance = np.abs(exact - fake)
        # a value is a level times a float32 scale, rounded: apart by less than half of any two levels' distance is the same code
        apart = distance > 1e-5 * np.maximum(np.abs(exact), np.abs(fake))
        self.count += distance.size
        self.differing += int(apart.sum())
        self.largest = max(self.largest, float(distance[apart].max(initial=0)))


def _reals(operand: Operand, carried: Tensor) -> NDArray[np.float64]:
    """Return what carried numbers are worth before their scale."""
    return np.asarray(operand.format.values[operand.codes_of(carried)])


def _fake(
    network: Network, fillings: Mapping[tuple[str, Place], Filling], images: NDArray[np.float32]
) -> tuple[NDArray[np.float32], dict[tuple[str, Role], NDArray[np.float32]]]:
    """Return logits of fake quantization and what passed every slot of a computed operand."""
    seen: dict[tuple[str, Role], NDArray[np.float32]] = {}

    def watching(layer: str, role: Role, filling: Filling) -> Filling:
        def watch(operand: Tensor) -> Tensor:
            result = filling(operand)
            seen[layer, role] = result.numpy().copy()
            return result

        return watch

    roles: dict[tuple[str, Place], Role] = {(layer.name, role): role for layer in network.layers for role in layer.operands}
    watched = {key: watching(key[0], roles[key], filling) if key in roles else filling for key, filling in fillings.items()}
    with torch.inference_mode(), network.filled(watched):
        logits = network.logits(images, workers=1)
    return logits, seen


def _difference(program: Program, makers: Mapping[str, object], key: tuple[str, Role], total: _Total) -> OperandDifference:
    value, fmt, _ = program.operands[key]
    return OperandDifference(
        layer=key[0],
        role=key[1],
        format_name=fmt.name,
        requantizer=_requantizer(program, makers, value.name, given=value.given),
        share=total.differing / max(total.count, 1),
        largest=float(np.round(np.ldexp(total.largest, -levels(fmt).lsb_exponent), 3)),
    )


def _requantizer(program: Program, makers: Mapping[str, object], name: str, *, given: bool) -> str:
    if given:
        return "input"
    if isinstance(makers[name], Compare):
        return "thresholds"
    by_output = {each.output: each for each in program.instructions}
    source = makers.get(by_output[name].operands[0])  # a clamp follows what rescales
    if not isinstance(source, Rescale):
        return "shift"
    return "multiplier" if not source.even else "shift" if source.shifts else "division"


def _uses(program: Program) -> Iterator[AccumulatorUse]:
    for each in program.instructions:
        if isinstance(each.step, Accumulate):
            step = each.step
            yield AccumulatorUse(layer=step.layer, accumulator=str(step.accumulator), bits=step.bound.bit_length() + 1)
