"""Stimuli as files of hexadecimal words, one for each cycle, and the Verilog test bench that reads them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodels.fpga.rtl.unit import MacUnit
from hwmodels.fpga.simulation.stimulus import Stimulus

TESTBENCH = "testbench.v"


def write_vectors(folder: Path, unit: MacUnit, given: Stimulus) -> None:
    """Write ``weights.hex``, ``activations.hex``, ``control.hex`` (check, first, enable) and ``sum.hex``, ``sum_odd.hex``."""
    control = given.enable + 2 * given.first.astype(np.int64) + 4 * given.check
    _write(folder / "weights.hex", packed(given.weights, unit.weight.bits))
    _write(folder / "activations.hex", packed(given.activations, unit.activation.bits))
    _write(folder / "control.hex", [f"{word:x}" for word in control.tolist()])
    for name, sums in zip(("sum", "sum_odd"), given.expected, strict=False):
        _write(folder / f"{name}.hex", twos_complement(sums, unit.accumulator_bits))


def _write(path: Path, words: list[str]) -> None:
    path.write_text("\n".join(words) + "\n", encoding="ascii")


def packed(codes: NDArray[np.int64], bits: int) -> list[str]:
    """Return rows of codes as words, the first code lowest."""
    spread = (codes[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(len(codes), -1)
    size = -(-spread.shape[1] // 8)
    raw = np.packbits(spread, axis=1, bitorder="little")[:, ::-1].tobytes().hex()
    return [raw[i : i + 2 * size] for i in range(0, len(raw), 2 * size)]


def twos_complement(numbers: NDArray[Any], bits: int) -> list[str]:
    """Return numbers as words of ``bits`` bits."""
    mask = (1 << bits) - 1
    return [f"{int(number) & mask:x}" for number in numbers]


def testbench(unit: MacUnit, cycles: int) -> str:
    """Return a Verilog-2001 test bench for ``cycles`` vectors: prints PASS or FAIL with the number of comparisons."""
    outputs = ["sum", "sum_odd"] if unit.has_root else ["sum"]
    widths = {
        "weights": unit.lanes * unit.weight.bits,
        "activations": unit.lanes * unit.activation.bits,
        "control": 3,
        **dict.fromkeys(outputs, unit.accumulator_bits),
    }
    memories = "\n".join(f"  reg [{width - 1}:0] {name}_words [0:{cycles - 1}];" for name, width in widths.items())
    wires = "\n".join(f"  wire signed [{unit.accumulator_bits - 1}:0] {name};" for name in outputs)
    loads = "\n".join(f'    $readmemh("{name}.hex", {name}_words);' for name in widths)
    ports = ", ".join(f".{name}({name})" for name in ("clk", "enable", "first", "weights", "activations", *outputs))
    differs = " || ".join(f"{name} !== {name}_words[cycle]" for name in outputs)
    shown = ", ".join(f"{name}, {name}_words[cycle]" for name in outputs)
    formats = ", ".join(f"{name} %h, not %h" for name in outputs)
    return f"""`timescale 1ns / 1ns
// Drives {unit.name} with {cycles} vectors and compares its sums with the emulator's.
module testbench;
{memories}
  reg clk = 0;
  reg enable, first;
  reg [{widths["weights"] - 1}:0] weights;
  reg [{widths["activations"] - 1}:0] activations;
{wires}
  integer cycle, compared, wrong;
  {unit.name} unit({ports});
  initial begin
{loads}
    compared = 0;
    wrong = 0;
    for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin
      weights = weights_words[cycle];
      activations = activations_words[cycle];
      enable = control_words[cycle][0];
      first = control_words[cycle][1];
      #1 clk = 1;
      #1 clk = 0;
      if (control_words[cycle][2]) begin
        compared = compared + 1;
        if ({differs}) begin
          wrong = wrong + 1;
          if (wrong <= 10) $display("cycle %0d: weights %h, activations %h: {formats}", cycle, weights, activations, {shown});
        end
      end
    end
    if (wrong == 0) $display("PASS %0d", compared);
    else $display("FAIL %0d of %0d", wrong, compared);
    $finish;
  end
endmodule
"""
