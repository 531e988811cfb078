"""Layers on GPUs: matrix products, rooflines, and fits to timings."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import InvalidValueError, Quantizer
from hwmodels import cost
from hwmodels.cost import LayerPlan
from hwmodels.gpu import devices, roofline, timings
from hwmodels.gpu.calibration import errors_by_family
from hwmodels.gpu.fitted import FEWEST_TIMINGS, FamilyFit, Timing, fit, leave_one_out
from hwmodels.gpu.gemm import Gemm, family_of, of_layer
from hwmodels.gpu.latency import latency, predicted
from hwmodels.workload import Convolution, LayerWorkload

H100 = devices.get("h100")
LINEAR = LayerWorkload(
    name="l",
    kind="linear",
    macs=4096 * 4096,
    weights=4096 * 4096,
    output_channels=4096,
    activations_in=4096,
    activations_out=4096,
    dot_length=4096,
)


def plan(weight: str, activation: str, workload: LayerWorkload = LINEAR) -> LayerPlan:
    return LayerPlan(workload=workload, weight=Quantizer.parse(weight), activation=Quantizer.parse(activation))


def convolution(groups: int) -> LayerWorkload:
    shape = Convolution(
        input_channels=32,
        groups=groups,
        kernel=(3, 3),
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        dilation=(1, 1),
        input_size=(8, 8),
        output_size=(8, 8),
    )
    depth = 32 // groups * 9
    return LayerWorkload(
        name="c", kind="convolution", macs=64 * 64 * depth, weights=64 * depth, output_channels=64, activations_in=2048,
        activations_out=4096, dot_length=depth, convolution=shape,
    )  # fmt: skip


def test_a_convolution_is_an_implicit_matrix_product_for_each_group() -> None:
    whole, grouped = (of_layer(plan("int8:channel", "int8", convolution(groups)), 5, H100) for groups in (1, 4))
    assert (whole.rows, whole.columns, whole.depth, whole.products) == (5 * 64, 64, 288, 1)
    assert (grouped.rows, grouped.columns, grouped.depth, grouped.products) == (5 * 64, 16, 72, 4)
    assert grouped.operations == 2 * 5 * convolution(4).macs


def test_a_product_has_two_computed_operands_for_each_sample() -> None:
    workload = LayerWorkload(
        name="p",
        kind="product",
        macs=4 * 16 * 16 * 8,
        weights=0,
        output_channels=16,
        activations_in=512,
        activations_out=1024,
        dot_length=8,
        matrices=4,
    )
    gemm = of_layer(plan("int4", "int4", workload), 3, H100)
    assert (gemm.rows, gemm.columns, gemm.depth, gemm.products) == (16, 16, 8, 12)
    assert gemm.operations == 2 * 3 * workload.macs


@pytest.mark.parametrize(
    ("weight", "activation", "arithmetic", "family"),
    [
        ("int8:channel", "int8", "int8", "int8"),
        ("int4:channel", "int8", "int8", "narrow-int8"),
        ("ternary:channel", "int8", "int8", "narrow-int8"),
        ("int4:group64", "int8", "bfloat16", "weight-only"),
        ("float8_e4m3fn:channel", "float8_e4m3fn", "float8", "float8"),
        ("int4:channel", "float8_e4m3fn", "float8", "narrow-float8"),
        ("post4:channel", "int8", "bfloat16", "weight-only"),
        ("e2m1:channel", "e2m1", "bfloat16", "weight-only"),
        ("nf4:group64", "bfloat16", "bfloat16", "weight-only"),
        ("bfloat16:channel", "bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_operands_that_tensor_cores_take_are_multiplied_as_they_are(
    weight: str, activation: str, arithmetic: str, family: str
) -> None:
    gemm = of_layer(plan(weight, activation), 1, H100)
    assert (gemm.arithmetic, family_of(gemm)) == (arithmetic, family)


@pytest.mark.parametrize(
    ("weight", "name"),
    [
        ("int4:group64:mse", "int4"),
        ("nf4:group64:absmax:double", "nf4"),
        ("mxfp4", "mxfp4"),
        ("tritplanes:group128", "tritplanes"),
        ("float8_e4m3fn:channel", "float8_e4m3fn"),
    ],
)
def test_weights_are_named_as_in_the_table(weight: str, name: str) -> None:
    assert of_layer(plan(weight, "bfloat16"), 1, H100).weight == name


def test_two_computed_operands_are_multiplied_in_what_they_are_computed_in() -> None:
    computed = replace(LINEAR, kind="product", weights=0)
    assert of_layer(plan("nf4:channel", "bfloat16", computed), 1, H100).weight == "bfloat16"
    assert of_layer(plan("int8:channel", "int8", computed), 1, H100).weight == "int8"


def test_without_float8_tensor_cores_float8_weights_are_but_smaller() -> None:
    gemm = of_layer(plan("float8_e4m3fn:channel", "float8_e4m3fn"), 1, devices.get("a100"))
    assert (gemm.arithmetic, gemm.weight_bits, gemm.activation_bits) == ("bfloat16", 8, 16)


def test_few_rows_take_the_time_of_the_weights_bytes_and_many_that_of_the_operations() -> None:
    few, many = (of_layer(plan("int4:channel", "bfloat16"), rows, H100) for rows in (1, 8192))
    weights = 4096 * 4096 / 2
    assert roofline.seconds(few, H100) == pytest.approx(weights / 3.35e12, rel=0.01)
    assert roofline.seconds(many, H100) == pytest.approx(2 * 8192 * 4096**2 / 989.4e12)


TRUE = FamilyFit(launch_seconds=6e-6, rate_share=0.7, bandwidth_share=0.85, tile_rows=16, tile_columns=128)
SHAPES = tuple(product((1, 16, 256, 4096), (1024, 4096, 8192), (1024, 8192)))


def measured(noise: float = 0.0, true: FamilyFit = TRUE, weight: str = "int4") -> list[Timing]:
    rng = np.random.default_rng(0)
    gemms = [Gemm(rows=rows, columns=columns, depth=depth, weight_bits=4, weight=weight) for rows, columns, depth in SHAPES]
    return [Timing(gemm=gemm, seconds=true.seconds(gemm, H100) * float(np.exp(rng.normal(0, noise)))) for gemm in gemms]


SIZES = st.integers(1, 30_000)
GEMMS = st.builds(
    Gemm,
    rows=SIZES,
    columns=SIZES,
    depth=SIZES,
    products=st.integers(1, 64),
    weight_bits=st.sampled_from((2, 3.2, 4, 16)),
    scale_bits=st.floats(0, 1e9),
    arithmetic=st.sampled_from(("bfloat16", "float8", "int8")),
)
SHARES = st.floats(0.01, 1.0)
FITS = st.builds(
    FamilyFit,
    launch_seconds=st.floats(1e-7, 1e-3),
    rate_share=SHARES,
    bandwidth_share=SHARES,
    tile_rows=st.sampled_from((8, 16, 64, 128, 192)),
    tile_columns=st.sampled_from((64, 128, 256)),
    splits=st.booleans(),
)


@given(gemms=st.lists(GEMMS, max_size=8), family=FITS)
def test_many_products_at_once_are_predicted_as_each_alone(gemms: list[Gemm], family: FamilyFit) -> None:
    assert family.all_seconds(gemms, H100).tolist() == [family.seconds(gemm, H100) for gemm in gemms]


def test_a_fit_finds_the_parameters_that_made_the_timings() -> None:
    found = fit(measured(), H100)
    assert found.launch_seconds == pytest.approx(TRUE.launch_seconds, rel=0.02)
    assert found.bandwidth_share == pytest.approx(TRUE.bandwidth_share, rel=0.02)
    assert np.abs([found.seconds(each.gemm, H100) / each.seconds - 1 for each in measured()]).max() < 0.05


@pytest.mark.parametrize("splits", [False, True])
def test_a_fit_finds_the_tile_where_waves_are_ragged(splits: bool) -> None:
    true = replace(TRUE, tile_rows=128, splits=splits)
    gemms = [
        Gemm(rows=rows, columns=columns, depth=4096) for rows in (1, 128, 1024) for columns in (1024, 4224, 4352, 17024, 33792)
    ]
    found = fit([Timing(gemm=gemm, seconds=true.seconds(gemm, H100)) for gemm in gemms], H100)
    assert (found.tile_rows, found.tile_columns, found.splits) == (128, 128, splits)
    assert found.all_seconds(gemms, H100) == pytest.approx(true.all_seconds(gemms, H100), rel=1e-3)


def test_few_rows_do_not_fill_a_tile_that_is_higher() -> None:
    tall = replace(TRUE, tile_rows=128)
    for rows in (1, 16):
        few = Gemm(rows=rows, columns=65536, depth=16384, weight_bits=0.1)  # few bytes, so that tiles set the time
        assert tall.seconds(few, H100) == TRUE.seconds(few, H100)
    one, more = (tall.seconds(Gemm(rows=rows, columns=65536, depth=16384, weight_bits=0.1), H100) for rows in (64, 65))
    assert more > 1.5 * one


def test_timings_with_a_second_launch_for_few_rows_are_met_within_that_launch() -> None:
    second = 2e-6
    given = [replace(each, seconds=each.seconds + second * (each.gemm.rows <= 16)) for each in measured()]
    found = fit(given, H100)
    assert TRUE.launch_seconds < found.launch_seconds < TRUE.launch_seconds + 1.1 * second
    assert max(abs(found.seconds(each.gemm, H100) - each.seconds) / each.seconds for each in given) < second / TRUE.launch_seconds


def test_what_is_left_out_is_predicted_about_as_well_as_it_was_measured() -> None:
    given = measured(0.03)
    errors = leave_one_out(given, H100, fit(given, H100))
    assert np.abs(errors).max() < 0.2
    assert np.median(np.abs(errors)) < 0.05


def test_leaving_one_out_is_a_fit_to_all_the_others() -> None:
    given = measured(0.03)
    alone = []
    for number, left_out in enumerate(given):
        others = fit([*given[:number], *given[number + 1 :]], H100)
        alone.append(others.seconds(left_out.gemm, H100) / left_out.seconds - 1)
    found = fit(given, H100)
    assert leave_one_out(given, H100, found) == pytest.approx(alone, abs=2e-4)
    assert leave_one_out(given, H100, found, [5, 2]) == pytest.approx([alone[5], alone[2]], abs=2e-4)


def test_no_prediction_is_below_the_roofline() -> None:
    optimist = replace(TRUE, launch_seconds=1e-9, rate_share=50.0, bandwidth_share=50.0)
    for each in measured():
        assert optimist.seconds(each.gemm, H100) == roofline.seconds(each.gemm, H100)


def test_too_few_timings_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^timings of a family must be at least 6 to be fitted, not 5$"):
        fit(measured()[:5], H100)
    with pytest.raises(InvalidValueError, match=r"^timings of a family must be at least 6 to be fitted, not 5$"):
        leave_one_out(measured()[:5], H100, TRUE)


def frame(found: list[Timing]) -> pd.DataFrame:
    rows = [
        dict.fromkeys(timings.COLUMNS, 0)
        | {
            "kernel": "k",
            "family": "weight-only",
            "weight": each.gemm.weight,
            "activation": "bfloat16",
            "mode": "steady",
            "correct": True,
            "arithmetic": "bfloat16",
        }
        | {"rows": each.gemm.rows, "columns": each.gemm.columns, "depth": each.gemm.depth, "weight_bits": 4, "activation_bits": 16}
        | {"microseconds": each.seconds * 1e6}
        for each in found
    ]
    return pd.DataFrame(rows)


def test_without_timings_the_model_says_roofline_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path))
    monkeypatch.setattr(timings, "SHIPPED", tmp_path)
    model = latency(H100, batch=2)
    assert model.name == "h100, roofline only"
    given = plan("int4:channel", "int8")
    found = cost.evaluate([model], [given]).total
    assert found["latency_us@h100"] == pytest.approx(roofline.seconds(of_layer(given, 2, H100), H100) * 1e6)
    assert found["energy_uj@h100"] == pytest.approx(found["latency_us@h100"] * 700)


def test_with_timings_families_that_have_some_are_priced_by_their_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path))
    path = tmp_path / "gpu" / "timings_h100.csv"
    path.parent.mkdir()
    frame(measured()).to_csv(path, index=False)
    model, families = latency(H100), timings.fits(H100)
    assert model.name == "h100, timings"
    assert set(families) == {"weight-only"}
    found = cost.evaluate([model], [plan("nf4:channel", "bfloat16"), plan("int8:channel", "int8", replace(LINEAR, name="m"))])
    fitted, bound = (of_layer(plan(*pair), 1, H100) for pair in (("nf4:channel", "bfloat16"), ("int8:channel", "int8")))
    assert found.layers["l"]["latency_us@h100"] == pytest.approx(families["weight-only"].seconds(fitted, H100) * 1e6)
    assert found.layers["m"]["latency_us@h100"] == pytest.approx(roofline.seconds(bound, H100) * 1e6)
    assert predicted(fitted, H100, families) > roofline.seconds(fitted, H100)


SLOW = replace(TRUE, launch_seconds=9e-6, rate_share=0.2, bandwidth_share=0.4)


def two_formats() -> list[Timing]:
    return [*measured(), *measured(true=SLOW, weight="nf4")]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, FamilyFit]:
    """Return the fits to a table of two formats, with three timings of another."""
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path))
    (tmp_path / "gpu").mkdir()
    table = frame([*two_formats(), *measured(weight="post4")[:3]])
    table.to_csv(tmp_path / "gpu" / "timings_h100.csv", index=False)
    return dict(timings.fits(H100))


def test_formats_of_one_family_are_predicted_apart(both: dict[str, FamilyFit]) -> None:
    assert set(both) == {"weight-only", "weight-only int4", "weight-only nf4"}
    for each in two_formats():
        assert predicted(each.gemm, H100, both) == pytest.approx(each.seconds, rel=0.05)
    price = {
        name: cost.evaluate([latency(H100)], [plan(f"{name}:channel", "bfloat16")]).total["latency_us@h100"]
        for name in ("int4", "nf4", "e2m1")
    }
    assert price["int4"] < price["e2m1"] < price["nf4"]


@pytest.mark.parametrize("weight", ["e2m1", "post4"])
def test_a_format_with_too_few_timings_has_the_fit_of_its_family(both: dict[str, FamilyFit], weight: str) -> None:
    gemm = of_layer(plan(f"{weight}:channel", "bfloat16"), 1, H100)
    assert predicted(gemm, H100, both) == both["weight-only"].seconds(gemm, H100)


def test_every_timing_is_compared_with_the_finest_fit_that_is_made_without_it(both: dict[str, FamilyFit]) -> None:
    few = measured(weight="post4")[:3]
    found = timings.compared(frame([*two_formats(), *few]), H100)
    counts = {"weight-only": 3, "weight-only int4": len(SHAPES), "weight-only nf4": len(SHAPES)}
    assert found["fit"].value_counts().to_dict() == counts
    assert set(found["family"]) == {"weight-only"}
    of_few = found[found["fit"] == "weight-only"]
    assert of_few["measured"].tolist() == pytest.approx([each.seconds for each in few])
    assert of_few["predicted"].tolist() == pytest.approx([both["weight-only"].seconds(each.gemm, H100) for each in few])
    pooled = leave_one_out([*two_formats(), *few], H100, both["weight-only"])
    assert of_few["left out"].tolist() == pytest.approx(pooled[-3:], abs=1e-6)
    assert found[found["fit"] == "weight-only nf4"]["left out"].abs().max() < 0.05
    assert errors_by_family(frame([*two_formats(), *few]), H100) == {"weight-only": found["left out"].abs().median()}


@pytest.mark.parametrize("count", [1, FEWEST_TIMINGS - 1])
def test_a_table_with_too_few_timings_is_none(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path))
    (tmp_path / "gpu").mkdir()
    table = frame(measured()[:count])
    table.to_csv(tmp_path / "gpu" / "timings_h100.csv", index=False)
    assert timings.fits(H100) == {}
    assert latency(H100).name == "h100, roofline only"
    assert timings.compared(table, H100).empty
    assert errors_by_family(table, H100) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="spread"), r"^table of timings must have the column spread, not lack it: .*t.csv$"),
        (lambda table: table.assign(microseconds=0.0), r"^microseconds must be above 0, not 0.0: .*t.csv, line 2$"),
    ],
)
def test_a_broken_table_is_refused(tmp_path: Path, change, message: str) -> None:
    change(frame(measured()[:3])).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InvalidValueError, match=message):
        timings.read(tmp_path / "t.csv")


def test_wrong_results_and_slower_kernels_do_not_count() -> None:
    table = frame(measured())
    slower = table.assign(kernel="slow", microseconds=table["microseconds"] * 3)
    wrong = table.assign(correct=False, microseconds=table["microseconds"] / 3)
    found = timings.by_family(pd.concat([slower, table, wrong], ignore_index=True))["weight-only"]
    assert [each.seconds for each in found] == pytest.approx([each.seconds for each in measured()])
    assert {each.gemm.weight for each in found} == {"int4"}
