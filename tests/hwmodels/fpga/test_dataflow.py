"""Stages of layers: what is in them, by hand."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import formats
from hwmodels.cost import NotPricedError
from hwmodels.fpga import formula_prices
from hwmodels.fpga.dataflow import (
    Option,
    Prices,
    Stage,
    accumulator_bits,
    layer_stages,
    matrix_options,
    requantizer_options,
    undominated,
)
from hwmodels.fpga.devices import Usage
from hwmodels.fpga.folding import Folding, divisors
from hwmodels.fpga.memory import fifo_luts, memory
from hwmodels.fpga.unit_cost import UnitCost
from hwmodels.workload import LayerWorkload
from tests.hwmodels.fpga.shapes import convolution, dense, heads

INT4, UINT4 = formats.get("int4"), formats.get("uint4")


def unit(weight: formats.Format, activation: formats.Format, *, lanes: int, dot_length: int, dsp: bool) -> UnitCost:
    """A hand-made price: 10 LUTs a lane, or 1 and a DSP slice; int16 has none."""
    if weight.name == "int16":
        raise NotPricedError("weight must be priced, not int16")
    lut, slices = (3.5 + lanes, lanes) if dsp and weight.name != "ternary" else (3.5 + 10 * lanes, 0)
    return UnitCost(lut=lut, carry4=0, flip_flops=7, dsp=slices, arrival_ps=0, origin="synthesised", recipe="hand")


def lane(bits: int, output: formats.Format, *, kind: str, dsp: bool) -> UnitCost:
    """A hand-made price: thresholds alone, 100 LUTs."""
    if kind != "thresholds":
        raise NotPricedError("no other kind")
    return UnitCost(lut=100, carry4=0, flip_flops=bits, dsp=0, arrival_ps=0, origin="predicted", recipe=kind)


HAND = Prices(unit=unit, requantizer=lane)
FORMULA = Prices(unit=formula_prices.unit_price, requantizer=formula_prices.requantizer_price)


def stages(workload: LayerWorkload, weight: str = "int4", outputs: tuple[str, ...] = (), prices: Prices = HAND) -> dict[str, Stage]:
    made = layer_stages(workload, formats.get(weight), UINT4, tuple(formats.get(name) for name in outputs), prices)
    return {stage.kind: stage for stage in made}


def matrix(workload: LayerWorkload, folding: Folding, style: str, *, dsp: bool = False) -> Option:
    """Return the one matrix stage of a folding with its weights in ``style``."""
    made = matrix_options(workload, INT4, UINT4, unit)
    (found,) = (o for o in made if o.folding == folding and o.memory == style and (o.usage.dsp > 0) == dsp)
    return found


def test_a_layer_has_the_stages_that_it_needs() -> None:
    assert list(stages(dense())) == ["matrix"]
    assert list(stages(convolution(4, 4, (1, 1), (5, 5)))) == ["matrix"]
    assert list(stages(convolution(4, 4, (3, 3), (5, 5)))) == ["window", "matrix"]
    padded = stages(convolution(4, 4, (3, 3), (5, 5), padding=1), outputs=("uint4",))
    assert list(padded) == ["padding", "window", "matrix", "requantizer"]
    assert list(stages(convolution(4, 4, (3, 3), (5, 5), padding=1, groups=4))) == ["padding", "matrix"]


def test_every_different_output_has_a_requantizer() -> None:
    made = layer_stages(dense(), INT4, UINT4, (formats.get("uint4"), formats.get("int8")), HAND)
    assert [stage.kind for stage in made] == ["matrix", "requantizer", "requantizer"]


def test_a_matrix_stage_is_units_weights_inputs_and_control() -> None:
    layer = dense(12, 8)
    made = matrix(layer, Folding(pe=2, simd=3), "lutram")
    weights = memory("lutram", 2 * 3 * 4, 4 * 4)
    inputs = memory("lutram", 3 * 4, 4, written=True)
    results = fifo_luts(2 * accumulator_bits(layer, INT4, UINT4), 2)
    assert made.cycles == 16
    assert made.usage.lut == math.ceil(2 * 33.5 + 300 + weights.lut + inputs.lut + results)
    assert made.usage.flip_flops == 14
    assert (made.origin, made.recipe) == ("synthesised", "hand")


def test_dsp_slices_and_block_rams_are_other_options() -> None:
    layer, folding = dense(120, 80), Folding(pe=2, simd=3)
    assert matrix(layer, folding, "lutram", dsp=True).usage.dsp == 6
    assert matrix(layer, folding, "bram").usage.bram == 3  # 1600 words of 24 bits: three of 9 x 2048
    assert matrix(layer, folding, "uram").usage.uram == 1


def test_a_unit_without_use_for_dsp_slices_has_no_such_option() -> None:
    assert not stages(dense(), "ternary")["matrix"].usage[:, 2].any()


def test_weights_that_never_change_are_wires() -> None:
    full = next(o for o in stages(dense(12, 8))["matrix"].options if o.folding == Folding(pe=8, simd=12))
    assert (full.memory, full.cycles) == ("wires", 1)


def test_a_product_stores_its_computed_operand_twice() -> None:
    layer = heads(matrices=2, rows=6, length=4, columns=10)
    made = matrix(layer, Folding(pe=1, simd=1), "bram")
    assert made.usage.bram == memory("bram", 4, 2 * layer.operand_elements, written=True).bram
    assert all(o.memory != "wires" for o in stages(layer)["matrix"].options)


def test_a_depthwise_window_works_on_the_channels_of_its_units() -> None:
    layer = convolution(8, 8, (3, 3), (10, 10), groups=8)
    ordinary = convolution(8, 8, (3, 3), (10, 10))
    made = stages(layer)["matrix"]
    assert {o.folding.pe for o in made.options} == set(divisors(8))
    slowest = next(o for o in made.options if o.folding == Folding(pe=2, simd=1))
    assert slowest.cycles == max(64 * 4 * 9, 2396)  # the window's, by FINN
    assert "window" in slowest.memory
    assert "window" in stages(ordinary)


def test_a_requantizer_holds_its_thresholds_for_every_channel() -> None:
    layer = dense(12, 8)
    bits = accumulator_bits(layer, INT4, UINT4)
    options = requantizer_options(layer, bits, False, formats.get("uint2"), lane)
    (made,) = (o for o in options if o.folding == Folding(pe=2) and o.memory == "lutram")
    assert made.cycles == 4
    assert made.usage.lut == 2 * (100 + memory("lutram", 3 * (bits + 1), 4).lut) + fifo_luts(2 * 2, 2)
    assert made.usage.flip_flops == 2 * bits


def test_sums_of_roots_are_joined_before_they_are_requantized() -> None:
    for folded, joined in zip(
        requantizer_options(dense(), 12, False, UINT4, lane), requantizer_options(dense(), 12, True, UINT4, lane), strict=True
    ):
        assert joined.usage.lut == folded.usage.lut + folded.folding.pe * 4 * 12
    plain, root = (stages(dense(), weight, ("uint2",))["requantizer"].usage[:, 0].min() for weight in ("pot4", "post4"))
    assert root > plain


def test_a_format_without_a_price_is_refused() -> None:
    with pytest.raises(NotPricedError, match=r"^weight must be priced, not int16$"):
        stages(dense(), "int16")

    def none(bits: int, output: formats.Format, *, kind: str, dsp: bool) -> UnitCost:
        raise NotPricedError("nothing")

    with pytest.raises(NotPricedError, match=r"^output format must be one that a requantizer is priced for, not uint4$"):
        stages(dense(), outputs=("uint4",), prices=Prices(unit=unit, requantizer=none))


@pytest.mark.parametrize("name", ["int4", "ternary", "binary", "e2m1", "e5m2", "pot4", "post4"])
def test_every_family_has_stages_by_formula(name: str) -> None:
    made = stages(convolution(4, 6, (3, 3), (6, 6), padding=1), name, ("e2m1", "ulog2_4"), FORMULA)
    for stage in made.values():
        assert (stage.usage >= 0).all()
        assert (stage.usage == np.floor(stage.usage)).all()


OPTIONS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 6), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
).map(lambda rows: [Option(c, Usage(lut=lut, dsp=d, bram=b), Folding(), "", "", "formula") for c, lut, d, b in rows])


@given(options=OPTIONS)
def test_an_option_is_dropped_only_for_one_that_is_as_good_in_everything(options: list[Option]) -> None:
    kept = undominated(options)

    def covers(a: Option, b: Option) -> bool:
        return all(x <= y for x, y in zip((a.cycles, *a.usage), (b.cycles, *b.usage), strict=True))

    assert all(any(covers(a, b) for a in kept) for b in options)
    assert not any(covers(a, b) for a, b in product(kept, kept) if a is not b)
