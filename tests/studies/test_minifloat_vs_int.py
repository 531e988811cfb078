"""The study of minifloats against integers measures every split after every step, and its conclusions follow from the table."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dse import experiment
from formats import Quantizer, get, registry
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.cost import LayerPlan
from hwmodels.fpga.mac_model import unit_price
from hwmodels.workload import LayerWorkload
from studies import minifloat_vs_int
from studies.minifloat_vs_int_cost import CYCLES, mac_units
from studies.minifloat_vs_int_data import (
    ALL,
    EVEN,
    FULL,
    INTEGER,
    MINIFLOAT,
    NONE,
    QUICK,
    ROWS,
    best_rows,
    formats,
    kind,
    pairs,
    splits,
)
from studies.minifloat_vs_int_page import ACCURACY, KL, LUT, MEMORY, USABLE, ahead, duels, front, optimal, steps, transformers

PICTURES = ("vit.png", "widths.png")
TINY = replace(
    QUICK,
    models=("vit",),
    widths=(3, 4),
    unequal=((3, 4),),
    rows=tuple(row for row in ROWS if row.name in (NONE, "rotate", ALL)),
    samples=40,
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minifloat_vs_int, "QUICK", TINY)
        minifloat_vs_int.main(["--quick", "--out", str(folder)])
        yield folder


def test_a_tiny_run_leaves_a_report_and_the_next_one_looks_everything_up(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted(path.name for path in report.iterdir()) == ["README.md", "minifloat_vs_int.csv", *PICTURES]
    assert all((report / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    page, table = (report / "README.md").read_text(), (report / "minifloat_vs_int.csv").read_bytes()
    assert "Made by `python -m studies.minifloat_vs_int --quick`" in page
    assert "nan" not in page
    lines = pd.read_csv(report / "minifloat_vs_int.csv", keep_default_na=False)
    # widths 3 and 4 have three and four formats, and a pair of two widths on either side
    assert lines.groupby(["model", "steps"]).size().to_dict() == {
        ("vit", "none"): 9,
        ("vit", "rotate"): 7,
        ("vit", "all"): 9,
    }
    assert lines["mac_units_predicted [share]"].between(0, 1).all()
    assert (lines[lines["weight"] == "int4"]["mac_units_predicted [share]"] == 0).all()
    monkeypatch.setattr(experiment, "measure", lambda *_: pytest.fail("what was measured must be looked up"))
    minifloat_vs_int.main(["--quick", "--out", str(report)])
    assert (report / "minifloat_vs_int.csv").read_bytes() == table


def test_steps_that_keep_the_function_of_the_float_network_change_the_quantized_one(report: Path) -> None:
    lines = pd.read_csv(report / "minifloat_vs_int.csv", keep_default_na=False)
    by_steps = lines[(lines["model"] == "vit") & (lines["weight"] == lines["activation"])].pivot(
        index="weight", columns="steps", values=KL
    )
    assert (by_steps[NONE] != by_steps["rotate"]).all()
    assert by_steps[ALL].median() < by_steps[NONE].median()


def test_every_split_of_every_width_is_there_once() -> None:
    for bits in FULL.widths:
        assert splits(bits) == tuple(
            f"e{e}m{m}" for e, m in product(range(1, 6), range(8)) if 1 + e + m == bits
        )  # an obvious enumeration
        assert all(get(name).bits == bits for name in formats(bits))
    assert [kind(name) for name in ("int4", "e1m2", "e2m1")] == [INTEGER, EVEN, MINIFLOAT]
    even = np.diff(np.unique(registry.scalar("e1m3").values))
    assert np.allclose(even, even[0])


@pytest.mark.parametrize("model", FULL.models)
def test_every_step_is_tried_alone_and_only_where_it_has_something_to_do(model: str) -> None:
    rows = {row.name for row, weight, _ in pairs(FULL, model) if weight == "int4"}
    assert {"none", "equalize", "smooth", "gptq", "round", "correct_bias", "all"} <= rows
    assert ("rotate" in rows) == (model == "vit")
    assert {row.name for row, weight, _ in pairs(FULL, model) if weight == "int8"} == {NONE, ALL}


def plan(weight: str, activation: str, *, outputs: int, dot_length: int, vectors: int) -> LayerPlan:
    workload = LayerWorkload(
        name="layer",
        kind="linear",
        macs=outputs * dot_length * vectors,
        weights=outputs * dot_length,
        output_channels=outputs,
        activations_in=dot_length * vectors,
        activations_out=outputs * vectors,
        dot_length=dot_length,
    )
    quantizers: list[TensorQuantizer] = [Quantizer.parse(text, granularity="tensor") for text in (weight, activation)]
    return LayerPlan(workload=workload, weight=quantizers[0], activation=quantizers[1])


def test_units_of_a_network_are_priced_for_its_rate() -> None:
    one = plan("int4", "int4", outputs=10, dot_length=100, vectors=50)
    unit = unit_price(registry.scalar("int4"), registry.scalar("int4"), lanes=12, dot_length=100, dsp=False)
    found = mac_units([one])
    assert found.lut == pytest.approx(unit.lut * (10 * 100 * 50 / CYCLES) / 12)
    assert found.predicted == 0
    assert mac_units([one], CYCLES // 2).lut == pytest.approx(2 * found.lut)
    other = plan("e5m1", "e5m1", outputs=10, dot_length=9, vectors=50)
    alone, both = mac_units([other]), mac_units([one, other])
    assert unit_price(registry.scalar("e5m1"), registry.scalar("e5m1"), lanes=9, dot_length=9, dsp=False).origin == "predicted"
    assert alone.predicted == 1
    assert both.lut == pytest.approx(found.lut + alone.lut)
    assert both.predicted == pytest.approx(alone.lut / both.lut)


def table(figures: dict[tuple[str, int, str], tuple[float, float, float]]) -> pd.DataFrame:
    """Return lines without steps: accuracy, divergence and LUTs by network, width and side."""
    names = {INTEGER: "int{}", MINIFLOAT: "e2m{}"}
    return pd.DataFrame(
        {
            "model": model,
            "weight": names[side].format(bits if side == INTEGER else bits - 3),
            "activation": names[side].format(bits if side == INTEGER else bits - 3),
            "weight_bits [bit]": bits,
            "activation_bits [bit]": bits,
            "kind": side,
            "steps": NONE,
            ACCURACY: accuracy,
            KL: divergence,
            MEMORY: 1000.0 * bits,
            LUT: lut,
        }
        for (model, bits, side), (accuracy, divergence, lut) in figures.items()
    )


def test_minifloats_are_said_to_be_ahead_only_where_they_are() -> None:
    better, worse = (0.90, 0.01, 100.0), (0.80, 0.1, 100.0)
    for bits_won, verdict, counts in (
        ((4, 5, 6), "**holds**.", "in 3, behind by more in 0, and level in 0"),
        ((4, 5), "**holds in part**.", "in 2, behind by more in 1, and level in 0"),
        ((), "**does not hold**.", "in 0, behind by more in 3, and level in 0"),
    ):
        sides = {
            ("resnet8", bits, side): better if (side == MINIFLOAT) == (bits in bits_won) else worse
            for bits in (3, 4, 5, 6)  # three bits do not count
            for side in (INTEGER, MINIFLOAT)
        }
        said = ahead(duels(table(sides)))
        assert verdict in said
        assert counts in said
    level = {("vit", 4, INTEGER): (0.89, 0.02, 1.0), ("vit", 4, MINIFLOAT): (0.90, 0.01, 1.0)}
    assert "**does not hold**. Of 1 pairs" in ahead(duels(table(level)))  # one point is no lead
    assert "it is ahead in 1." in ahead(duels(table(level)))


def test_integers_are_optimal_only_where_luts_say_so() -> None:
    floats = {"resnet8": 0.93}
    for integer_luts, verdict, counts in ((50.0, "**holds**", "resnet8 1 of 2"), (150.0, "**does not hold**", "resnet8 0 of 1")):
        sides = {("resnet8", 4, INTEGER): (0.90, 0.1, integer_luts), ("resnet8", 4, MINIFLOAT): (0.92, 0.05, 100.0)}
        said = optimal(table(sides), floats)
        assert verdict in said
        assert f"front of accuracy and LUTs: {counts};" in said
        assert "weight memory: resnet8 0 of 1. By divergence in place of accuracy: LUTs " + counts in said


def test_the_front_is_what_nothing_of_use_beats() -> None:
    draws = np.random.default_rng(3)
    keys = [("vit", bits, side) for bits in range(4, 12) for side in (INTEGER, MINIFLOAT)]
    points = table({key: (draws.uniform(0.8, 0.9), 0.1, float(draws.integers(1, 9))) for key in keys})
    kept = front(points, LUT, {"vit": 0.9})
    usable = points[points[ACCURACY] >= 0.9 - USABLE]
    for index, one in usable.iterrows():
        beaten = ((usable[LUT] <= one[LUT]) & (usable[ACCURACY] >= one[ACCURACY])).sum() > 1
        assert (index in kept.index) != beaten
    assert 0 < len(kept) < len(usable) < len(points)


def test_the_network_that_profits_most_is_found() -> None:
    gains = {"resnet8": 0.01, "mobilenet": 0.02, "vit": 0.03}
    for order, verdict in (
        (("resnet8", "mobilenet", "vit"), "**holds** (in accuracy, by more than 1 point: yes; in divergence: yes)"),
        (("vit", "mobilenet", "resnet8"), "**does not hold** (in accuracy, by more than 1 point: no; in divergence: no)"),
    ):
        sides = {}
        for model, gain in zip(order, gains.values(), strict=True):
            for bits in (4, 5, 6):
                sides[model, bits, INTEGER] = (0.8, 0.1, 1.0)
                sides[model, bits, MINIFLOAT] = (0.8 + gain, 0.1 / (100 * gain + 1), 1.0)
        assert verdict in transformers(duels(table(sides)))


def test_the_best_row_is_that_of_the_lowest_divergence() -> None:
    plain = table({("vit", 4, INTEGER): (0.8, 0.4, 1.0), ("vit", 4, MINIFLOAT): (0.8, 0.3, 1.0)})
    prepared = plain.assign(steps="gptq").assign(**{KL: [0.1, 0.6]})
    both = pd.concat([plain, prepared], ignore_index=True)
    assert best_rows(both)["steps"].tolist() == [NONE, "gptq"]
    assert "by 4.00 for integers and by 1.00 for minifloats" in steps(both)
    assert "`none` 1, `gptq` 1" in steps(both) or "`gptq` 1, `none` 1" in steps(both)
