"""From rows of values, one for each scale, to the shape of a tensor: ``Granularity.from_rows`` in operators of ONNX."""

import math

import numpy as np
from onnx import numpy_helper

from dse.export.lowering import Parts
from formats.granularity import Granularity

#: an operator that moves values, and the whole numbers that it gets
Move = tuple[str, list[list[int]]]


def to_shape(rows: str, granularity: Granularity, shape: tuple[int, ...], output: str, prefix: str, parts: Parts) -> None:
    """Add nodes that lay out a value of shape (R, n), the rows of ``granularity``, as a tensor of ``shape``."""
    moves = _moves(granularity, shape)
    for number, (operator, numbers) in enumerate(moves):
        name = f"{prefix}/laid_out_{number}"
        made = output if number == len(moves) - 1 else name
        if operator == "Transpose":
            rows = parts.add(operator, [rows], made, perm=numbers[0])
        else:
            stored = [whole_numbers(f"{name}/{index}", given, parts) for index, given in enumerate(numbers)]
            rows = parts.add(operator, [rows, *stored], made)


def whole_numbers(name: str, values: list[int], parts: Parts) -> str:
    """Store an int64 vector, such as a shape, and return its name."""
    return parts.store(numpy_helper.from_array(np.array(values, np.int64), name))


def _moves(granularity: Granularity, shape: tuple[int, ...]) -> list[Move]:
    if granularity.name not in ("group", "tile"):
        return [("Reshape", [list(shape)])]
    channels, width = shape[0], math.prod(shape[1:])
    height, length = channels + -channels % granularity.channels, width + -width % granularity.size
    moves: list[Move] = []
    if granularity.name == "tile":
        tiles = [height // granularity.channels, length // granularity.size, granularity.channels, granularity.size]
        moves += [("Reshape", [tiles]), ("Transpose", [[0, 2, 1, 3]])]
    moves.append(("Reshape", [[height, length]]))
    if (height, length) != (channels, width):
        moves.append(("Slice", [[0, 0], [channels, width], [0, 1]]))
    return [*moves, ("Reshape", [list(shape)])]
