"""Small tables of units, made by hand or by a known law of cost."""

from collections.abc import Iterable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from formats.arithmetic.width import bound_bits
from formats.registry import scalar
from hwmodels.fpga.candidates import dsp_names, fabric_names
from hwmodels.fpga.mac_features import PARTS, bill
from hwmodels.fpga.rtl.operand import read
from hwmodels.fpga.synthesis.table import MAC, Table

DOT_LENGTH = 1024
#: LUTs of each part in the law; those that are not named cost 1
LAW = {"decode": 0.8, "array": 1.4, "rows": 1.1, "shift": 0.9, "deep": 0.5, "lanes": 0.0, "mask": 0.2}
WEIGHTS = ("int2", "int3", "int4", "int6", "int8", "e2m1", "e3m2", "e4m3", "pot4", "post4", "ternary", "binary")
ACTIVATIONS = ("uint2", "uint4", "int4", "int8", "e2m1", "e4m3")


def row(weight: str, activation: str, recipe: str, lanes: int, lut: float, **figures: object) -> dict[str, object]:
    """Return a row; what is not said is 0 or as the formats have it."""
    bits = bound_bits(scalar(activation), scalar(weight), DOT_LENGTH)
    given = {
        "weight": weight,
        "activation": activation,
        "lanes": lanes,
        "recipe": recipe,
        "dot_length": DOT_LENGTH,
        "accumulator_bits": bits,
        "lut": lut,
        "carry4": bits // 4,
        "flip_flops": bits,
        "arrival_ps": 3000,
        "simulator": "none",
        "key": "0",
        **figures,
    }
    return {name: given.get(name, 0) for name in MAC.columns}


def table(rows: Iterable[Mapping[str, object]], tool: str = "hand 1.0") -> Table:
    """Return a table of rows."""
    return Table(tool=tool, rows=pd.DataFrame(list(rows), columns=MAC.columns))


def lawful(weights: Iterable[str] = WEIGHTS, activations: Iterable[str] = ACTIVATIONS) -> Table:
    """Return a table in which the parts of every unit cost what ``LAW`` says."""
    each = np.array([LAW.get(name, 1.0) for name in PARTS])
    rows = []
    for w, a in product(weights, activations):
        weight, activation = scalar(w), scalar(a)
        bits = bound_bits(activation, weight, DOT_LENGTH)
        for recipe, lanes in product(fabric_names(read(weight), read(activation)), (4, 12)):
            parts = bill(weight, activation, recipe, lanes, bits)
            tree, accumulator = parts[-2:]
            figures = {"carry4": (tree + accumulator) / 4, "arrival_ps": 2000 + 300 * np.log2(lanes)}
            rows.append(row(w, a, recipe, lanes, float(parts @ each), **figures))
        for recipe, lanes in product(dsp_names(read(weight), read(activation)), (4, 12)):
            rows.append(row(w, a, recipe, lanes, bits + 2 * lanes, dsp_allowed=1, dsp=lanes))
    return table(rows)
