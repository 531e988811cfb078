"""Thresholds, for any output format and any scale: the code of as many levels as the accumulator is at or above.

The thresholds come from memory, a set for each channel, and have one bit more than accumulators: a level that no accumulator
leads to has a threshold above them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

from hwmodels.fpga.rtl.boolean import lookup
from hwmodels.fpga.rtl.requantizer.levels import ordered_codes
from hwmodels.fpga.rtl.requantizer.specification import Requantizer, RequantizerHardware
from hwmodels.fpga.rtl.wires import wired


@dataclass(frozen=True, kw_only=True, eq=False)
class ThresholdRequantizer(Requantizer):
    """Compares with all thresholds at once."""

    family: ClassVar[str] = "thresholds"

    @property
    def count(self) -> int:
        """Number of thresholds."""
        return len(ordered_codes(self.output)) - 1

    def hardware(self) -> "ThresholdHardware":
        """Return the requantizer as logic."""
        return ThresholdHardware(self)


class ThresholdHardware(RequantizerHardware):
    """Inputs ``accumulator`` and ``thresholds``, the least one lowest."""

    def __init__(self, design: ThresholdRequantizer) -> None:
        """Make the ports."""
        super().__init__(design)
        self.design = design
        self.thresholds = Signal(design.count * (design.accumulator_bits + 1))
        self.inputs.append(self.thresholds)

    def result(self, m: Module) -> Value:
        """Compare, and choose the code by halving the levels."""
        width = self.design.accumulator_bits + 1
        parts = [self.thresholds.word_select(i, width).as_signed() for i in range(self.design.count)]
        reached = [wired(m, self.accumulator >= part) for part in parts]
        codes = [int(code) for code in ordered_codes(self.design.output)]
        return Cat(*(_chosen(m, reached, [code >> bit & 1 for code in codes]) for bit in range(self.design.output.bits)))


def _chosen(m: Module, reached: Sequence[Value], entries: Sequence[int]) -> Value:
    """Return the entry of the level reached; ``reached`` is set up to that level."""
    if len(set(entries)) == 1:
        return Const(entries[0], 1)
    half = len(entries) // 2
    upper, lower = _chosen(m, reached[half:], entries[half:]), _chosen(m, reached[: half - 1], entries[:half])
    return wired(m, Mux(reached[half - 1], upper, lower))


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequantizer(Requantizer):
    """Halves the levels in a stage for each bit of the level's number; every stage reads a threshold from a memory of its own.

    Levels are filled up to a power of two by thresholds that no accumulator reaches.
    """

    family: ClassVar[str] = "search"

    @property
    def stages(self) -> int:
        """Number of comparisons, and of cycles until the code is there."""
        return max((len(ordered_codes(self.output)) - 1).bit_length(), 1)

    @property
    def latency(self) -> int:
        """Clock edges from an accumulator to its code."""
        return self.stages

    def hardware(self) -> "SearchHardware":
        """Return the requantizer as logic."""
        return SearchHardware(self)


class SearchHardware(RequantizerHardware):
    """Inputs ``accumulator`` and, for stage s, ``threshold_s``, which is at ``address_s`` of its memory in the same cycle.

    Stage 0 has one threshold, the middle one, and no address; stage s has 2**s: in every part that is left, the middle one.
    """

    def __init__(self, design: SearchRequantizer) -> None:
        """Make the ports."""
        super().__init__(design)
        self.design = design
        stages = design.stages
        self.thresholds = [Signal(signed(design.accumulator_bits + 1), name=f"threshold_{s}") for s in range(stages)]
        #: bits of the level's number that are found before a stage, the highest first found
        self.addresses = [Signal(s, name=f"address_{s}", reset_less=True) for s in range(1, stages)]
        self.inputs += self.thresholds
        self.outputs = [*self.addresses, self.code]

    def result(self, m: Module) -> Value:
        """Compare stage by stage; the last one looks the code up."""
        numbers: list[Value] = [self.accumulator]
        for stage in range(1, self.design.stages):
            held = Signal(signed(self.design.accumulator_bits), name=f"accumulator_{stage}", reset_less=True)
            m.d.sync += held.eq(numbers[-1])
            numbers.append(held)
        found: Value = Const(0, 0)
        for number, threshold, address in zip(numbers, self.thresholds, [*self.addresses, None], strict=True):
            found = wired(m, Cat(number >= threshold, found))
            if address is not None:
                m.d.sync += address.eq(found)
                found = address
        codes = [int(code) for code in ordered_codes(self.design.output)]
        table = codes + [None] * (2**self.design.stages - len(codes))
        return Cat(*lookup(m, found, table, self.design.output.bits))
