"""Prices of requantizers: the table's own figures, lines between and beyond, a formula where there is nothing."""

import pandas as pd
import pytest

from formats import registry
from hwmodels.cost import NotPricedError
from hwmodels.fpga import formula_prices, requantizer_model
from hwmodels.fpga.requantizer_model import RequantizerModel, cheapest, requantizer_price
from hwmodels.fpga.synthesis.requantizer_calibration import Subject, design_of, shipped_subjects
from hwmodels.fpga.synthesis.table import REQUANTIZER, Table


def row(kind: str, bits: int, lut: int, *, dsp: int = 0) -> dict[str, object]:
    counts = dict.fromkeys(REQUANTIZER.columns, 0)
    return counts | {"kind": kind, "output": "uint4", "accumulator_bits": bits, "dsp_allowed": dsp, "lut": lut, "dsp": dsp}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("search", 16, 40), row("search", 24, 60), row("search", 32, 70), row("thresholds", 16, 100)]
    rows += [row("multiplier-single", bits, bits * 20) for bits in (16, 32)]
    rows += [row("multiplier-single", bits, bits, dsp=1) for bits in (16, 32)]
    rows += [row("multiplier-double", bits, bits * 21) for bits in (16, 32)]
    table = Table(tool="none", rows=pd.DataFrame(rows), layout=REQUANTIZER)
    monkeypatch.setattr(requantizer_model, "model", lambda: RequantizerModel(table=table))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("bits", "lut"), [(16, 40), (24, 60), (32, 70), (20, 50), (28, 65), (36, 75), (12, 30), (2, 5)])
def test_widths_between_and_beyond_lie_on_a_line(bits: int, lut: int) -> None:
    cost = requantizer_price(bits, registry.scalar("uint4"), kind="search", dsp=False)
    assert (cost.lut, cost.origin, cost.recipe) == (lut, "synthesised", "search")


@pytest.mark.usefixtures("small")
def test_a_single_width_is_no_line() -> None:
    uint4 = registry.scalar("uint4")
    assert requantizer_price(16, uint4, kind="thresholds", dsp=False).lut == 100
    beside = requantizer_price(20, uint4, kind="thresholds", dsp=False)
    assert beside == formula_prices.requantizer_price(20, uint4, kind="thresholds", dsp=False)
    assert beside.origin == "formula"


@pytest.mark.usefixtures("small")
def test_the_smaller_multiplier_is_taken_and_slices_where_they_are_allowed() -> None:
    uint4 = registry.scalar("uint4")
    fabric = requantizer_price(24, uint4, kind="multiplier", dsp=False)
    assert (fabric.lut, fabric.dsp, fabric.recipe) == (480, 0, "multiplier-single")
    slices = requantizer_price(24, uint4, kind="multiplier", dsp=True)
    assert (slices.lut, slices.dsp) == (24, 1)
    assert requantizer_price(24, uint4, kind="search", dsp=True).lut == 60


@pytest.mark.usefixtures("small")
def test_the_cheapest_kind_is_a_synthesised_one() -> None:
    assert cheapest(24, registry.scalar("uint4")).recipe == "search"
    assert cheapest(24, registry.scalar("uint4"), dsp=True).recipe == "multiplier-single"
    assert cheapest(24, registry.scalar("e4m3")).origin == "formula"


@pytest.mark.usefixtures("small")
def test_a_kind_that_does_not_lead_to_the_format_has_no_price() -> None:
    with pytest.raises(NotPricedError, match="must be a whole number, not e4m3"):
        requantizer_price(24, registry.scalar("e4m3"), kind="multiplier", dsp=False)


def test_the_shipped_table_holds_what_is_promised_each_proved() -> None:
    rows = requantizer_model.model().table.rows
    found = {tuple(found) for found in rows[list(REQUANTIZER.identity)].itertuples(index=False)}
    wanted = {(s.kind, s.output, s.accumulator_bits, int(s.dsp)) for s in shipped_subjects()}
    assert wanted <= found
    narrow = rows[rows["accumulator_bits"] == 16]
    assert (narrow["compared"] >= 2**16).all()
    assert (rows["compared"] > 1000).all()


def test_conversion_to_a_minifloat_costs_more_than_to_an_integer_of_as_many_bits() -> None:
    model = requantizer_model.model()
    for minifloat, integer in (("e2m1", "int4"), ("e4m3", "int8")):
        searches = [model.price("search", 24, registry.scalar(name), dsp=False) for name in (minifloat, integer)]
        assert searches[0] is not None
        assert searches[1] is not None
        assert searches[0].lut >= searches[1].lut


@pytest.mark.parametrize(
    "subject", [Subject(kind=s.kind, output=s.output, accumulator_bits=16, dsp=s.dsp) for s in shipped_subjects()[::29]], ids=str
)
def test_every_kind_of_the_table_is_built(subject: Subject) -> None:
    design = design_of(subject)
    assert (design.kind, design.output.name, design.accumulator_bits) == (subject.kind, subject.output, 16)
