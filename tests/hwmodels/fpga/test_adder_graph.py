"""Adder graphs compute the product with their matrix, bit for bit; their figures by hand and by da4ml's own pipelines."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from da4ml.trace import to_pipeline
from da4ml.types import minimal_kif
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import InvalidValueError
from formats.errors import MissingPackageError
from hwmodels.fpga.adder_graph import AdderGraph, Interval, adder_graph

NIBBLE = Interval(-8, 7)


def draws(intervals: list[Interval], count: int, seed: int = 0) -> np.ndarray:
    """Random inputs, the two ends of every interval among them."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(i.low // i.step, i.high // i.step + 1, size=count) * i.step for i in intervals]
    drawn = np.stack(columns, axis=1)
    drawn[0], drawn[1] = [i.low for i in intervals], [i.high for i in intervals]
    return drawn


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_graph_computes_the_product_in_whatever_blocks(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    cells = st.integers(-20, 20) | st.just(0) | st.sampled_from([-(2**30), 2**30, 3 << 20])
    matrix = np.array(data.draw(st.lists(cells, min_size=rows * columns, max_size=rows * columns))).reshape(rows, columns)
    some = st.sampled_from(
        [NIBBLE, Interval(0, 15), Interval(0, 0), Interval(-6, 4, 2), Interval(-1, 1), Interval(3, 3), Interval(-9, -2)]
    )
    intervals = data.draw(st.lists(some, min_size=rows, max_size=rows))
    blocks = {"rows": data.draw(st.integers(1, 10)), "columns": data.draw(st.integers(1, 10))}
    graph = adder_graph(matrix, intervals, **blocks)
    x = draws(intervals, 40)
    np.testing.assert_array_equal(graph.run(x), x @ matrix)


@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_larger_graph_computes_the_product_in_blocks_that_do_not_divide_it(width: int) -> None:
    rng = np.random.default_rng(width)
    matrix = rng.integers(-(2 ** (width - 1)), 2 ** (width - 1), size=(70, 45))
    graph = adder_graph(matrix, [NIBBLE] * 70, rows=32, columns=20)
    x = draws([NIBBLE] * 70, 500)
    np.testing.assert_array_equal(graph.run(x), x @ matrix)


@pytest.mark.parametrize(
    ("matrix", "lut", "adders", "depth"),
    [
        ([[1]], 0, 0, 0),
        ([[-4]], 0, 0, 0),  # a shift and a sign
        ([[0, 0]], 0, 0, 0),
        ([[1], [1]], 4, 1, 1),  # two 4-bit numbers
        ([[3]], 4, 1, 1),  # x + 2x from the place that both have: bits 1 to 4
        ([[1, 1], [1, 1]], 4, 1, 1),  # the sum is shared
        ([[1], [1], [1], [1]], 4 + 4 + 5, 3, 2),
    ],
)
def test_adders_by_hand(matrix: list[list[int]], lut: float, adders: int, depth: int) -> None:
    graph = adder_graph(np.array(matrix), [NIBBLE] * len(matrix))
    assert (graph.lut, graph.adders, graph.depth) == (lut, adders, depth)


def test_partial_sums_are_paid_for() -> None:
    matrix = np.ones((4, 1), np.int64)
    whole, parts = (adder_graph(matrix, [NIBBLE] * 4, rows=rows) for rows in (4, 2))
    assert (parts.lut, parts.adders, parts.depth) == (whole.lut, whole.adders, whole.depth) == (13, 3, 2)
    assert adder_graph(matrix, [NIBBLE] * 4, rows=1).adders == 3


def test_columns_apart_share_nothing() -> None:
    matrix = np.ones((8, 4), np.int64)
    whole, parts = (adder_graph(matrix, [NIBBLE] * 8, columns=columns) for columns in (4, 1))
    assert parts.adders == 4 * whole.adders == 28
    assert parts.lut == 4 * adder_graph(matrix[:, :1], [NIBBLE] * 8).lut > whole.lut


def test_a_graph_is_cheaper_than_its_weights_one_by_one() -> None:
    matrix = np.random.default_rng(1).integers(-8, 8, size=(16, 16))
    alone = [adder_graph(matrix[:, [column]], [NIBBLE] * 16).lut for column in range(16)]
    assert adder_graph(matrix, [NIBBLE] * 16).lut < 0.85 * sum(alone)


def reference_registers(graph: AdderGraph, levels: int) -> tuple[int, int]:
    """Stages and register bits of the pipeline that da4ml cuts the graph into."""
    pipeline = to_pipeline(graph.logic, levels, retiming=False, verbose=False)
    inputs = sum(sum(minimal_kif(interval)) for interval in pipeline.inp_qint)
    return len(pipeline.solutions), pipeline.reg_bits - inputs


@pytest.mark.parametrize("levels", [1, 2, 3, 100])
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (20, 7), (5, 3), (1, 1)])
def test_registers_are_those_of_da4mls_pipelines(rows: int, columns: int, levels: int) -> None:
    matrix = np.random.default_rng(rows).integers(-8, 8, size=(rows, columns))
    if rows == 5:
        matrix[:, 1] = 0
    if rows == 1:
        matrix = abs(matrix)  # da4ml would register the negative of an input, which may take a bit more than the input
    graph = adder_graph(matrix, [NIBBLE, *[Interval(0, 30, 2)] * (rows - 1)], rows=8, columns=4)
    assert (graph.stages(levels), graph.flip_flops(levels)) == reference_registers(graph, levels)


def test_fewer_registers_with_more_adders_between_them() -> None:
    graph = adder_graph(np.random.default_rng(0).integers(-8, 8, size=(16, 8)), [NIBBLE] * 16)
    bits = [graph.flip_flops(levels) for levels in range(1, graph.depth + 1)]
    assert all(more >= fewer for more, fewer in pairwise(bits))
    assert graph.stages(graph.depth) == 1
    with pytest.raises(InvalidValueError, match=r"^levels of adders between registers must be at least 1, not 0$"):
        graph.flip_flops(0)


@pytest.mark.parametrize(
    ("matrix", "count", "message"),
    [
        ([[1], [2]], 1, r"^matrix must have a row for each input and at least one column, not the shape \(2, 1\) for 1 inputs$"),
        ([1, 2], 2, r"^matrix must have a row for each input and at least one column, not the shape \(2,\) for 2 inputs$"),
        ([[2**31]], 1, r"^weights in LSBs must be below 2\*\*31 for an adder graph, not 2147483648$"),
        ([[2**24 + 1]], 1, r"^weights in LSBs must be exact in float32 for an adder graph, not of more than 24 bits$"),
    ],
)
def test_matrices_that_have_no_graph(matrix: list[list[int]], count: int, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        adder_graph(np.array(matrix), [NIBBLE] * count)


def test_blocks_must_hold_something() -> None:
    with pytest.raises(InvalidValueError, match=r"^blocks must have at least one row and one column, not 0 x 4$"):
        adder_graph(np.ones((2, 2), np.int64), [NIBBLE] * 2, rows=0, columns=4)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "da4ml"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "da4ml", None)
    message = r"^da4ml must be installed for the unrolled style: pip install bitatlas\[unrolled\]$"
    with pytest.raises(MissingPackageError, match=message):
        adder_graph(np.ones((1, 1), np.int64), [NIBBLE])
