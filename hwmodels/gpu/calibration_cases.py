"""What ``dse calibrate gpu`` times: every kernel on the shapes of real layers, those first that separate kernels most."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product as pairs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodels.gpu.kernels.kernel import Kernel, Product

#: (columns, depth) of layers: square ones, and those of transformers of 8 and 70 billion weights
MATRICES = ((4096, 4096), (8192, 8192), (14336, 4096), (4096, 14336), (1024, 1024), (2048, 2048), (28672, 8192), (8192, 28672))
ROWS = (1, 16, 4096, 256, 64, 4, 1024, 128)
#: what tells cases apart in a table
KEY = ("kernel", "weight", "activation", "group", "rows", "columns", "depth")

#: (weight, activation, group) that every kernel is asked whether it takes; a group of 0 is a scale for each column
OPERANDS = (
    ("bfloat16", "bfloat16", 0),
    *((name, "bfloat16", 128) for name in ("int4", "e2m1", "nf4", "int8", "post4", "pot4", "e4m3", "e3m2", "int3", "int2")),
    *((name, "bfloat16", 0) for name in ("int4", "ternary", "tritplanes", "mxfp4", "mxfp8_e4m3", "nvfp4")),
    ("int8", "int8", 0),
    ("int4", "int8", 0),
    ("ternary", "int8", 0),
    ("float8_e4m3fn", "float8_e4m3fn", 0),
    ("int4", "float8_e4m3fn", 0),
)
#: (format, values, group) of kernels that quantize, timed on the largest number of rows alone
QUANTIZED = tuple((name, "bfloat16", 0) for name in ("int8", "int4", "e2m1", "float8_e4m3fn", "post4", "nf4", "mxfp4", "nvfp4"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel and the operands that it is timed on."""

    kernel: "Kernel"
    product: "Product"

    @property
    def key(self) -> tuple[object, ...]:
        """What tells its rows in the table from others."""
        p = self.product
        return (self.kernel.name, p.weight, p.activation, p.group, p.rows, p.columns, p.depth)

    @property
    def name(self) -> str:
        """What messages call it."""
        p = self.product
        return f"{self.kernel.name} {p.weight} x {p.activation}, {p.rows} x {p.columns} x {p.depth}"


def wanted(kernels: Mapping[str, "Kernel"]) -> list[Case]:
    """Return every case, the shapes that matter most first."""
    return [case for rows, matrix in _shapes() for case in _cases(kernels, rows, *matrix)]


def _shapes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield rows and matrices by the sum of their places in the lists."""
    places = pairs(range(len(ROWS)), range(len(MATRICES)))
    for row, matrix in sorted(places, key=lambda place: (sum(place), place)):
        yield ROWS[row], MATRICES[matrix]


def _cases(kernels: Mapping[str, "Kernel"], rows: int, columns: int, depth: int) -> Iterator[Case]:
    from hwmodels.gpu.kernels.kernel import Product

    given = [Product(rows=rows, columns=columns, depth=depth, weight=w, activation=a, group=group) for w, a, group in OPERANDS]
    if rows == max(ROWS):
        given += [Product(rows=rows, columns=0, depth=depth, weight=w, activation=a, group=group) for w, a, group in QUANTIZED]
    for each in given:
        yield from (Case(kernel=kernel, product=each) for kernel in kernels.values() if kernel.takes(each) is None)
