"""The compiled loops: divide by the scale, round, multiply back, in one pass over each element.

Scales repeat along the flat array: element ``i`` has the scale ``scales[(i // repeat) % len(scales)]``. Every kind of format has
its own loop; ``TABLE`` is the general one, the others are closed forms that give the same codes. All of it releases the
interpreter lock, so that threads can share an array.
"""

from formats.kernels.decode import decode
from formats.kernels.encode import encode
from formats.kernels.few import GROUP, MOST
from formats.kernels.parameters import FLOATING, LOGARITHMIC, SHORTENED, TABLE, UNIFORM, Parameters, Rule, Tables
from formats.kernels.pieces import BLOCK
from formats.kernels.quantize import quantize

__all__ = [
    "BLOCK",
    "FLOATING",
    "GROUP",
    "LOGARITHMIC",
    "MOST",
    "SHORTENED",
    "TABLE",
    "UNIFORM",
    "Parameters",
    "Rule",
    "Tables",
    "decode",
    "encode",
    "quantize",
]
