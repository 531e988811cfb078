"""Memory primitives for a memory of ``depth`` words of ``width`` bits, by the published geometry of AMD's devices.

- LUT as read-only memory: 64 words of 1 bit (UG474, UG574). Up to 256 words the slice's own multiplexers F7 and F8 join the LUTs;
  beyond, one LUT is a 4:1 multiplexer. Up to 256 words this is FINN's figure too (``c2`` of ``MVAU_hls.lut_estimation``).
- LUT as memory that is written while it is read: RAM64M, 4 LUTs for 64 words of 3 bits, or RAM32M, 4 LUTs for 32 words of 6 bits.
- Block RAM of 18 Kib (UG473, UG573), simple dual port: 1 x 16384, 2 x 8192, 4 x 4096, 9 x 2048, 18 x 1024 or 36 x 512. The least
  number over these configurations is taken; FINN's ladder (``MVAU.bram_estimation``) fixes the configuration by the width alone
  and comes out the same or higher.
- UltraRAM of 288 Kib (UG573): 72 x 4096. It holds no contents from the bitstream: weights are written to it at the start.

No rule picks the style of a memory: every style is an option of its stage, and the search takes what the whole design is best with.
"""

import math
from typing import Literal

from hwmodels.fpga.devices import Usage

Style = Literal["lutram", "bram", "uram"]
STYLES: tuple[Style, ...] = ("lutram", "bram", "uram")
#: width and depth of a block RAM of 18 Kib
BRAM18_CONFIGURATIONS = ((1, 16384), (2, 8192), (4, 4096), (9, 2048), (18, 1024), (36, 512))
URAM_WIDTH, URAM_DEPTH = 72, 4096
LUT_DEPTH = 64
#: words that a slice's own multiplexers reach
SLICE_DEPTH = 256


def memory(style: Style, width: int, depth: int, *, written: bool = False) -> Usage:
    """Return the primitives of a memory. ``written`` says that it is written while it is read, not a table of constants.

    A table of one word is wires, whatever the style.
    """
    if width == 0 or depth == 0 or (depth == 1 and not written):
        return Usage()
    if style == "lutram":
        return Usage(lut=ram_luts(width, depth) if written else rom_luts(width, depth))
    if style == "bram":
        return Usage(bram=bram18(width, depth))
    return Usage(uram=uram(width, depth))


def rom_luts(width: int, depth: int) -> int:
    """LUTs of a table of constants, with the multiplexers above it."""
    return width * (math.ceil(depth / LUT_DEPTH) + _multiplexer(depth))


def ram_luts(width: int, depth: int) -> int:
    """LUTs of a simple dual-port memory, with the multiplexers above it."""
    wide = 4 * math.ceil(width / 6) * math.ceil(depth / 32)
    deep = 4 * math.ceil(width / 3) * math.ceil(depth / LUT_DEPTH)
    return min(wide, deep) + width * _multiplexer(depth)


def _multiplexer(depth: int) -> int:
    """LUTs that choose one of the slices' outputs: 4:1 each, in a tree."""
    return math.ceil((math.ceil(depth / SLICE_DEPTH) - 1) / 3)


def bram18(width: int, depth: int) -> int:
    """Block RAMs of 18 Kib."""
    return min(math.ceil(width / wide) * math.ceil(depth / deep) for wide, deep in BRAM18_CONFIGURATIONS)


def uram(width: int, depth: int) -> int:
    """UltraRAMs."""
    return math.ceil(width / URAM_WIDTH) * math.ceil(depth / URAM_DEPTH)


def fifo_luts(width: int, depth: int) -> int:
    """LUTs of a FIFO of shift registers: two addresses, and 32 words of 2 bits in a LUT (FINN-R's estimate)."""
    return 2 * math.ceil(math.log2(depth)) + math.ceil(depth / 32) * math.ceil(width / 2)
