"""A network as a program of whole numbers, and how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.batches import map_batches
from dse.hardware.accumulate import Operand
from dse.hardware.steps import Step
from dse.network import Role
from formats import Format

BATCH = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A tensor of whole numbers, and what they stand for."""

    name: str
    #: what 1 is worth, float64 with as many axes as the tensor, each of length 1 or the tensor's own for a batch of one
    unit: NDArray[np.float64]
    #: no number is below or above these
    low: int
    high: int
    #: whether these are the input's own codes, if rearranged
    given: bool = False

    @property
    def bits(self) -> int:
        """Bits of the largest magnitude."""
        return max(-self.low, self.high, 1).bit_length()


@dataclass(frozen=True, kw_only=True, eq=False)
class Instruction:
    """A step, the values that it reads and the one that it makes."""

    step: Step
    operands: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Instructions in order, from the input's codes to the logits.

    A tensor in a format whose levels are whole numbers one after the other is carried as these, any other as codes.
    """

    model: str
    input_format: Format
    input_scale: float
    instructions: tuple[Instruction, ...]
    #: one unit for all logits
    output: Value
    classes: int
    #: the quantized operands of layers, by layer name and role: the value, and its format and scale
    operands: Mapping[tuple[str, Role], tuple[Value, Format, float]]

    def encode(self, images: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return what the program reads for (N, …) samples."""
        codes = self.input_format.encode(images, self.input_scale).astype(np.int64)
        operand = Operand(format=self.input_format)
        return operand.tables[0][codes] if operand.plain else codes

    def run(self, images: NDArray[np.float32], workers: int | None = None) -> NDArray[np.int64]:
        """Return the logits of (N, …) samples in whole numbers of the output's unit, int64 of shape (N, classes)."""
        parts = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        return np.concatenate(map_batches(lambda part: self.trace(part, ())[self.output.name].numpy(), parts, workers))

    def logits(self, images: NDArray[np.float32], workers: int | None = None) -> NDArray[np.float32]:
        """Return the logits of (N, …) samples, float32 of shape (N, classes)."""
        return (self.run(images, workers) * self.output.unit).astype(np.float32)

    def trace(self, images: NDArray[np.float32], kept: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the values named in ``kept``, and the output, for a batch of samples."""
        last = {name: number for number, each in enumerate(self.instructions) for name in each.operands}
        values = {INPUT: torch.from_numpy(self.encode(images))}
        for number, each in enumerate(self.instructions):
            values[each.output] = each.step.run(*(values[name] for name in each.operands))
            for name in set(each.operands):
                if last[name] == number and name not in kept:
                    del values[name]
        return {name: values[name] for name in {*kept, self.output.name}}


#: name of the value that the program reads
INPUT = "codes"
