"""Stimuli as files of hexadecimal words, one for each cycle, and the Verilog test bench that reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels.fpga.rtl.design import Hardware

TESTBENCH = "testbench.v"
#: inputs up to this width are printed beside a difference
SHOWN_BITS = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Stimulus:
    """What a design is driven with and what is expected of it: one row for each clock cycle."""

    #: numbers on each input port, of shape (cycles,), or (cycles, parts) where equal parts share a port, the first one lowest
    inputs: Mapping[str, NDArray[Any]]
    #: numbers on each output port after the cycle, int64 or Python integers, of shape (cycles,)
    expected: Mapping[str, NDArray[Any]]
    #: whether the outputs are compared; bool of shape (cycles,)
    check: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of cycles."""
        return len(self.check)


def joined(parts: Sequence[Stimulus]) -> Stimulus:
    """Return stimuli one after the other."""
    return Stimulus(
        inputs={name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
        expected={name: np.concatenate([part.expected[name] for part in parts]) for name in parts[0].expected},
        check=np.concatenate([part.check for part in parts]),
    )


def input_words(hardware: Hardware, given: Stimulus) -> dict[str, list[str]]:
    """Return the words on each input port."""
    words = {}
    for port in hardware.inputs:
        numbers = given.inputs[port.name].reshape(len(given), -1).astype(np.int64)
        words[port.name] = packed(numbers, len(port) // numbers.shape[1])
    return words


def write_vectors(folder: Path, hardware: Hardware, given: Stimulus) -> None:
    """Write ``check.hex`` and a file for each port, called by its name."""
    files = input_words(hardware, given)
    files |= {port.name: twos_complement(given.expected[port.name], len(port)) for port in hardware.outputs}
    files["check"] = [f"{word:x}" for word in given.check.astype(int).tolist()]
    for name, words in files.items():
        (folder / f"{name}.hex").write_text("\n".join(words) + "\n", encoding="ascii")


def packed(numbers: NDArray[np.int64], bits: int) -> list[str]:
    """Return rows of numbers as words of ``bits`` bits for each, two's complement, the first number lowest."""
    spread = (numbers[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(len(numbers), -1)
    size = -(-spread.shape[1] // 8)
    raw = np.packbits(spread, axis=1, bitorder="little")[:, ::-1].tobytes().hex()
    above = spread.shape[1] % 8 in (1, 2, 3, 4)  # a digit that no bit reaches
    return [raw[i + above : i + 2 * size] for i in range(0, len(raw), 2 * size)]


def twos_complement(numbers: NDArray[Any], bits: int) -> list[str]:
    """Return numbers as words of ``bits`` bits."""
    mask = (1 << bits) - 1
    return [f"{int(number) & mask:x}" for number in numbers.tolist()]


def testbench(module: str, hardware: Hardware, cycles: int) -> str:
    """Return a Verilog-2001 test bench of a module for ``cycles`` vectors: prints PASS or FAIL with the number of comparisons."""
    inputs = {port.name: len(port) for port in hardware.inputs}
    outputs = {port.name: len(port) for port in hardware.outputs}
    words = {"check": 1, **inputs, **outputs}

    def lines(text: str, names: Mapping[str, int]) -> str:
        return "\n".join(text.format(name=name, top=width - 1, last=cycles - 1) for name, width in names.items())

    links = ", ".join(f".{name}({name})" for name in ("clk", *inputs, *outputs))
    differs = " || ".join(f"{name} !== {name}_words[cycle]" for name in outputs)
    narrow = [name for name, width in inputs.items() if width <= SHOWN_BITS]
    shown = ", ".join([*narrow, *(f"{name}, {name}_words[cycle]" for name in outputs)])
    texts = ", ".join([*(f"{name} %h" for name in narrow), *(f"{name} %h, not %h" for name in outputs)])
    return f"""`timescale 1ns / 1ns
// Drives {module} with {cycles} vectors and compares its outputs with the emulator's.
module testbench;
{lines("  reg [{top}:0] {name}_words [0:{last}];", words)}
  reg clk = 0;
{lines("  reg [{top}:0] {name};", inputs)}
{lines("  wire [{top}:0] {name};", outputs)}
  integer cycle, compared, wrong;
  {module} unit({links});
  initial begin
{lines('    $readmemh("{name}.hex", {name}_words);', words)}
    compared = 0;
    wrong = 0;
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
{lines("      {name} = {name}_words[cycle];", inputs)}
      #1 clk = 1;
      #1 clk = 0;
      if (check_words[cycle]) begin
        compared = compared + 1;
        if ({differs}) begin
          wrong = wrong + 1;
          if (wrong <= 10) $display("cycle %0d: {texts}", cycle, {shown});
        end
      end
    end
    if (wrong == 0) $display("PASS %0d", compared);
    else $display("FAIL %0d of %0d", wrong, compared);
    $finish;
  end
endmodule
"""
