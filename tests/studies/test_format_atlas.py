"""The atlas measures every format on everything that it is for, each at its best scale."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from formats import BitatlasError, get
from formats.registry import FAMILIES, Family
from formats.scaling import ScaleChoice
from studies import format_atlas
from studies.format_atlas_formats import entries
from studies.format_atlas_scale import best_scale, measure, ordered, squared_errors
from studies.format_atlas_sources import (
    GAUSSIAN,
    LAPLACE,
    NEVER_NEGATIVE,
    SIGNED,
    SOFTMAX,
    STUDENT_T,
    WEIGHTS,
    Values,
    _checked,
    student_t_quantile,
    synthetic,
)

SNR, BITS, MSE = "snr [dB]", "bits [bit/element]", "mse [share of energy]"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("atlas")
    format_atlas.main(["--quick", "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def table(report: Path) -> pd.DataFrame:
    return pd.read_csv(report / "format_atlas.csv", keep_default_na=False, na_values={"scale [rms]": [""]})


@pytest.fixture(scope="module")
def densities() -> dict[str, Values]:
    return {values.source: values for values in synthetic(1 << 14)}


def squares(x: np.ndarray) -> float:
    return float(np.square(x.astype(np.float64)).sum())


def test_a_run_leaves_a_table_a_picture_and_a_page(report: Path, table: pd.DataFrame) -> None:
    assert sorted(path.name for path in report.iterdir()) == ["README.md", "format_atlas.csv", "format_atlas.png"]
    assert (report / "format_atlas.png").read_bytes().startswith(b"\x89PNG")
    page = (report / "README.md").read_text()
    assert "Made by `python -m studies.format_atlas --quick`" in page
    assert "| 2 | 0.11748" in page
    assert list(table["source"].unique()) == [GAUSSIAN, LAPLACE, STUDENT_T, WEIGHTS, SIGNED, NEVER_NEGATIVE, SOFTMAX]


def test_every_signed_format_is_measured_everywhere_and_unsigned_ones_where_nothing_is_negative(table: pd.DataFrame) -> None:
    signed = {entry.name for entry in entries() if not entry.unsigned}
    unsigned = {entry.name for entry in entries() if entry.unsigned}
    assert {"uint8", "ue4m4", "uapot4", "ulog2_4", "ulogsqrt2_4"} < unsigned
    for source, lines in table[table["group"] != "fitted"].groupby("source"):
        assert set(lines["format"]) == (signed | unsigned if source in (NEVER_NEGATIVE, SOFTMAX) else signed)


def test_figures_of_a_line_agree_with_each_other(table: pd.DataFrame) -> None:
    bound = 10 * np.log10(4) * table[BITS]
    assert np.allclose(table["gap_to_bound [dB]"], bound - table[SNR], atol=5e-4)  # of rounded bits
    assert np.allclose(table[MSE], 10 ** (-table[SNR] / 10), rtol=1e-4)
    assert (table["worst_snr [dB]"] <= table[SNR]).all()
    assert (table["code_entropy [bit]"] <= table[BITS]).all()
    assert table["scale [rms]"].isna().equals(table["group"].isin(["block", "fitted"]))


def test_no_format_beats_the_bound_on_a_gaussian_source(table: pd.DataFrame) -> None:
    assert (table[table["source"] == GAUSSIAN]["gap_to_bound [dB]"] > 0).all()


def test_levels_fitted_to_the_samples_are_not_beaten_by_a_format_of_their_width(table: pd.DataFrame) -> None:
    for _, lines in table[table["source"].isin([GAUSSIAN, LAPLACE, STUDENT_T]) & (table["group"] != "block")].groupby(
        ["source", BITS]
    ):
        assert lines[lines["group"] == "fitted"][SNR].item() > lines[lines["group"] != "fitted"][SNR].max() - 1e-3


def test_lloyd_max_levels_have_the_errors_that_max_printed(table: pd.DataFrame) -> None:
    check = format_atlas.lloyd_max_check(table)
    for way in ("samples", "integral", "closed form"):
        assert np.allclose(check[way], [0.1175, 0.03454, 0.009497], rtol=1e-3, atol=0)


def test_other_errors_of_lloyd_max_levels_stop_the_run(table: pd.DataFrame) -> None:
    wrong = table.copy()
    wrong.loc[wrong["format"] == "lloydmax3", MSE] = 0.0347
    with pytest.raises(
        BitatlasError, match=r"^error of lloydmax3 on N\(0, 1\) must be 0.03454 within 0.1%, not 0.0347 \(samples\)$"
    ):
        format_atlas.lloyd_max_check(wrong)


def test_int8_on_a_gaussian_source_as_numpy_has_it(table: pd.DataFrame) -> None:
    x = next(iter(synthetic(1 << 16))).rows.astype(np.float64)
    ratios = [
        10 * np.log10((x**2).sum() / ((np.clip(np.rint(x / scale), -128, 127) * scale - x) ** 2).sum())
        for scale in np.linspace(0.02, 0.05, 301)
    ]
    line = table[(table["source"] == GAUSSIAN) & (table["format"] == "int8")]
    assert line[SNR].item() == pytest.approx(max(ratios), abs=5e-3)
    assert line[SNR].item() > max(ratios) - 1e-3


def test_every_family_has_its_members(table: pd.DataFrame) -> None:
    names = [entry.name for entry in entries()]
    assert len(set(names)) == len(names)
    wide = {"bfloat16", "float16", "binary"}  # of 16 bits, and of 1
    shifted = {"uint{b}_zero{z}", "int{b}_zero{z}"}  # integers again
    assert {entry.family for entry in entries()} == {family.pattern for family in FAMILIES} - wide - shifted
    expected = {f"e{e}m{width - 1 - e}" for width in range(2, 9) for e in range(1, width)}
    assert {entry.name for entry in entries() if entry.family == "e{E}m{M}"} == expected
    expected = {f"ue{e}m{width - e}" for width in range(2, 9) for e in range(1, width + 1)}
    assert {entry.name for entry in entries() if entry.family == "ue{E}m{M}"} == expected
    assert [entry.name for entry in entries() if entry.family == "int{b}"] == [f"int{bits}" for bits in range(2, 9)]


def test_a_new_family_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    new = Family(pattern="strange{b}", build=lambda bits: get(f"int{bits}"), ranges=((2, 3),))
    monkeypatch.setattr("formats.registry.FAMILIES", [*FAMILIES, new])
    monkeypatch.setattr("studies.format_atlas_formats.FAMILIES", [*FAMILIES, new])
    get.cache_clear()
    found = [entry for entry in entries() if entry.family == "strange{b}"]
    get.cache_clear()
    assert [(entry.name, entry.group, entry.same_levels_as) for entry in found] == [
        ("strange2", "other", "int2"),
        ("strange3", "other", "int3"),
    ]


def test_formats_of_the_same_levels_are_marked() -> None:
    same = {entry.name: entry.same_levels_as for entry in entries()}
    assert same["float4_e2m1fn"] == "e2m1"
    assert same["e1m2"] == "int4_narrow"
    assert same["ternary"] == "int2_narrow"
    assert same["apot3"] == "e2m0"
    assert same["pot3"] == ""  # the same levels, but rounded in the log domain
    assert same["float8_e4m3fn"] == ""  # a NaN takes a level away


@pytest.mark.parametrize("density", [GAUSSIAN, STUDENT_T])
def test_the_error_of_a_scale_is_that_of_the_quantizer(densities: dict[str, Values], density: str) -> None:
    signed = densities[density].rows[:, :4096]
    scales = np.float32([0.003, 0.11, 1.0, 7.0])
    for entry in entries():
        if entry.group == "block":
            continue
        rows = np.abs(signed) if entry.unsigned else signed
        top = float(entry.format.largest)
        usable = np.clip(scales / top, np.finfo(np.float32).tiny, np.float32(1e38)).astype(np.float32)
        found = squared_errors(entry.format, ordered(rows), usable.astype(np.float64))
        expected = [squares(entry.format.quantize(rows, scale) - rows) for scale in usable]
        assert np.allclose(found, expected, rtol=1e-4), entry.name


@pytest.mark.parametrize("density", [GAUSSIAN, LAPLACE, STUDENT_T])
@pytest.mark.parametrize("name", ["int2", "int8", "e2m1", "e4m3", "e5m2", "e7m0", "pot4", "post8", "apot5", "lloydmax3", "nf4"])
def test_no_neighbour_of_the_best_scale_is_better(densities: dict[str, Values], density: str, name: str) -> None:
    rows = densities[density].rows
    fmt = get(name)
    chosen = best_scale(fmt, ordered(rows))
    least = squares(fmt.quantize(rows, chosen) - rows)
    for factor in (0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.0):
        assert least <= squares(fmt.quantize(rows, chosen * np.float32(factor)) - rows) * (1 + 1e-6)
    for choice in ("mse", "lsq"):
        other = ScaleChoice.parse(choice).scales(fmt, rows)[0]
        assert least <= squares(fmt.quantize(rows, other) - rows) * (1 + 1e-5)


def test_bits_of_block_formats_hold_their_scales() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    given = ordered(rows)
    assert measure(get("nvfp4"), rows, given).bits == pytest.approx(4 + 8 * 3 / 40)
    assert measure(get("mxfp4"), rows, given).bits == pytest.approx(4 + 8 * 2 / 40)
    expected = 10 * np.log10(squares(rows) / squares(get("mxfp4").quantize(rows) - rows))
    assert measure(get("mxfp4"), rows, given).snr_decibels == pytest.approx(expected)
    assert measure(get("int4"), rows, given).bits == 4


def test_the_same_run_gives_the_same_table() -> None:
    first, second = (format_atlas.survey(synthetic(2048)).to_csv(index=False) for _ in range(2))
    assert first == second


def test_samples_follow_their_densities(densities: dict[str, Values]) -> None:
    for source, variance, tail in ((GAUSSIAN, 1.0, 0.0455003), (LAPLACE, 2.0, 0.1353353), (STUDENT_T, 5 / 3, 0.1019395)):
        x = densities[source].rows[0].astype(np.float64)
        assert np.mean(x**2) == pytest.approx(variance, rel=0.02)
        assert np.mean(np.abs(x) > 2) == pytest.approx(tail, abs=2e-4)
        assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.03  # neighbours know nothing of each other


def test_quantiles_of_student_t_are_those_of_the_tables() -> None:
    found = student_t_quantile(np.array([0.5, 0.75, 0.9, 0.975, 0.995, 0.9995, 0.025]))
    assert np.allclose(found, [0, 0.726687, 1.475884, 2.570582, 4.032143, 6.868827, -2.570582], atol=1e-6)
    assert all(low < high for low, high in pairwise(student_t_quantile(np.linspace(1e-9, 1 - 1e-9, 1001))))


def test_tensors_without_a_ratio_are_refused() -> None:
    with pytest.raises(BitatlasError, match=r"values of a tensor must not all be zero: .* \(net layer\)$"):
        _checked(WEIGHTS, "net layer", np.zeros((2, 3), np.float32))
    rows = np.float32([[1, -1, 0, 1.5]])
    with pytest.raises(BitatlasError, match=r"values must not all be levels of the format, .* \(mxint8\)$"):
        measure(get("mxint8"), rows, ordered(rows))
