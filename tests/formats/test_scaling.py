import numpy as np
import pytest

import formats
from formats import Quantizer
from formats.scale_storage import ScaleStorage
from formats.scaling import ScaleChoice, least_squares_scales, mse_fractions
from tests.formats.samples import exactly, normal

INT4, UINT4, E2M1, POT4, BINARY = (formats.get(name) for name in ("int4", "uint4", "e2m1", "pot4", "binary"))
ALL = (INT4, UINT4, E2M1, POT4, BINARY, formats.get("ulogsqrt2_4"), formats.get("int8_narrow"), formats.get("ternary"))
ABSMAX, MSE = ScaleChoice.parse("absmax"), ScaleChoice.parse("mse")


def squared_errors(fmt, rows, scales):
    quantized = fmt.quantize(rows, scales[:, np.newaxis]).astype(np.float64)
    return ((quantized - rows) ** 2).sum(axis=1)


def test_absmax_puts_the_largest_magnitude_on_the_largest_level():
    rows = normal(50, 40)
    for fmt in (INT4, E2M1, POT4, BINARY):
        scales = ABSMAX.scales(fmt, rows)
        assert scales.dtype == np.float32
        np.testing.assert_array_equal(scales, np.abs(rows).max(axis=1) / np.float32(fmt.maximum))


def test_absmax_of_the_known_formats():
    rows = np.float32([[3, -6, 1.5]])
    assert ABSMAX.scales(INT4, rows) == np.float32(6) / np.float32(7)
    assert ABSMAX.scales(E2M1, rows) == 1
    assert ABSMAX.scales(POT4, rows) == 6


def test_negative_values_do_not_count_for_a_format_that_has_none():
    assert ABSMAX.scales(UINT4, np.float32([[3, -60, 1.5]])) == np.float32(3) / np.float32(15)
    assert ABSMAX.scales(UINT4, np.float32([[-3, -60]])) == 1


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9, 100])
def test_percentile_is_numpys_percentile_of_the_magnitudes(percent):
    rows = normal(20, 300)
    for fmt in (INT4, E2M1):
        expected = np.percentile(np.abs(rows), percent, axis=1).astype(np.float32) / np.float32(fmt.maximum)
        np.testing.assert_array_equal(ScaleChoice.parse(f"percentile{percent}").scales(fmt, rows), expected)
    positive = np.percentile(np.maximum(rows, 0), 90, axis=1).astype(np.float32) / np.float32(15)
    np.testing.assert_array_equal(ScaleChoice.parse("percentile90").scales(UINT4, rows), positive)


def test_percentile100_is_absmax():
    rows = normal(20, 300)
    np.testing.assert_array_equal(ScaleChoice.parse("percentile100").scales(INT4, rows), ABSMAX.scales(INT4, rows))


def test_percentile_of_a_row_that_is_almost_all_zeros_falls_back_to_the_largest():
    rows = np.zeros((1, 100), np.float32)
    rows[0, 7] = -14
    assert ScaleChoice.parse("percentile90").scales(INT4, rows) == 2


def test_mse_is_the_best_of_its_candidates():
    rows = normal(30, 64)
    for fmt in ALL:
        candidates = [np.float32(fraction) * ABSMAX.scales(fmt, rows) for fraction in mse_fractions(fmt)]
        errors = np.array([squared_errors(fmt, rows, scales) for scales in candidates])
        np.testing.assert_allclose(squared_errors(fmt, rows, MSE.scales(fmt, rows)), errors.min(axis=0), rtol=1e-6)


def test_mse_is_never_worse_than_absmax():
    for seed, shape in enumerate([(40, 5), (40, 64), (10, 1000), (3, 1)]):
        rows = normal(*shape, seed=seed, spread=10.0 ** (seed - 2))
        rows[0, : shape[1] // 8] *= 50
        for fmt in ALL:
            absmax = squared_errors(fmt, rows, ABSMAX.scales(fmt, rows))
            assert (squared_errors(fmt, rows, MSE.scales(fmt, rows)) <= absmax * (1 + 1e-6)).all()


def test_mse_cuts_outliers_off():
    rows = normal(1, 5000)
    rows[0, 0] = 12
    assert MSE.scales(INT4, rows) < 0.6 * ABSMAX.scales(INT4, rows)


@pytest.mark.parametrize("choice", ["absmax", "percentile99", "mse"])
def test_a_row_of_zeros_takes_the_scale_one(choice):
    rows = normal(3, 20)
    rows[1] = [0.0, -0.0] * 10
    for fmt in ALL:
        scales = ScaleChoice.parse(choice).scales(fmt, rows)
        assert scales[1] == 1
        assert (scales[[0, 2]] != 1).all()


@pytest.mark.parametrize("choice", ["absmax", "percentile99", "mse"])
def test_scales_are_float32_positive_and_finite_at_the_ends_of_float32(choice):
    for magnitude in (1e-45, 1e-40, 1e-38, 1e30, 2e38):
        rows = np.float32([[magnitude, -magnitude / 3]])
        for fmt in ALL:
            scales = ScaleChoice.parse(choice).scales(fmt, rows)
            assert scales.dtype == np.float32
            assert scales.shape == (1,)
            assert np.isfinite(scales).all()
            assert (scales >= np.finfo(np.float32).tiny).all()


@pytest.mark.parametrize("choice", ["absmax", "percentile99", "mse"])
def test_empty_rows_take_the_scale_one_and_no_rows_give_no_scales(choice):
    assert ScaleChoice.parse(choice).scales(INT4, np.zeros((3, 0), np.float32)).tolist() == [1, 1, 1]
    assert ScaleChoice.parse(choice).scales(INT4, np.zeros((0, 4), np.float32)).shape == (0,)


SEARCHES = [ScaleChoice.parse(name) for name in ("mse", "lsq", "repq", "fpq")]


def test_lsq_is_never_worse_than_mse():
    for seed, shape in enumerate([(40, 5), (40, 64), (10, 1000), (3, 1)]):
        rows = normal(*shape, seed=seed, spread=10.0 ** (seed - 2))
        for fmt in ALL:
            found = squared_errors(fmt, rows, ScaleChoice.parse("lsq").scales(fmt, rows))
            assert (found <= squared_errors(fmt, rows, MSE.scales(fmt, rows))).all()


def test_lsq_ends_where_another_step_gains_nothing():
    rows = normal(50, 40)
    for fmt in ALL:
        scales = ScaleChoice.parse("lsq").scales(fmt, rows)
        refined = least_squares_scales(fmt, rows, scales)
        assert (squared_errors(fmt, rows, refined) >= squared_errors(fmt, rows, scales)).all()


def test_the_least_squares_scale_is_the_best_for_its_codes():
    rows, scales = normal(20, 30), ABSMAX.scales(E2M1, normal(20, 30))
    codes = E2M1.encode(rows, scales[:, np.newaxis])
    refined = least_squares_scales(E2M1, rows, scales)

    def error(scales):
        return ((E2M1.values[codes] * scales[:, np.newaxis].astype(np.float64) - rows) ** 2).sum(axis=1)

    for factor in (0.99, 1.01):
        assert (error(refined) <= error(refined * np.float32(factor))).all()
    quotient = (rows * E2M1.values[codes]).sum(axis=1) / (E2M1.values[codes] ** 2).sum(axis=1)
    np.testing.assert_allclose(refined, quotient, rtol=1e-6)


def test_lsq_finds_the_scale_of_a_tensor_that_has_one():
    levels = np.random.default_rng(0).integers(-7, 8, (10, 200)).astype(np.float32)
    scales = np.exp(normal(10)).astype(np.float32)
    np.testing.assert_allclose(ScaleChoice.parse("lsq").scales(INT4, levels * scales[:, np.newaxis]), scales, rtol=1e-6)


@pytest.mark.parametrize("dead", [0.0, 1e-3])
def test_twn_follows_its_formula(dead):
    rows = normal(30, 70)
    rows[np.abs(rows) < dead] = 0
    fmt = formats.get("ternary")
    choice = ScaleChoice.parse("twn")
    scales = choice.scales(fmt, rows)
    levels = fmt.decode(choice.encode(fmt, rows, scales))
    for row, scale, found in zip(rows.astype(np.float64), scales, levels, strict=True):
        delta = 0.7 * np.abs(row).mean()
        expected = [0 if abs(w) <= delta else np.sign(w) for w in row]
        assert found.tolist() == expected
        np.testing.assert_allclose(scale, np.abs(row)[np.abs(row) > delta].mean(), rtol=1e-6)


def test_twn_codes_differ_from_the_nearest_ones():
    x = np.float32([[0.1, 0.6, -0.5, -2.0]])  # mean 0.8, threshold 0.56, scale 1.3, its half 0.65
    tensor = Quantizer.parse("ternary:channel:twn").encode(x)
    np.testing.assert_allclose(tensor.scales, [1.3], rtol=1e-6)
    np.testing.assert_allclose(tensor.decode(), [[0, 1.3, 0, -1.3]], rtol=1e-6)
    assert formats.get("ternary").quantize(x, tensor.scales[0])[0, 1] == 0


def test_twn_and_xnor_leave_the_filling_of_short_groups_out():
    x = np.float32([[1, -2, 3, -4, 5]])
    assert Quantizer.parse("binary:group3:xnor").encode(x).scales.tolist() == [2, 4.5]
    assert Quantizer.parse("ternary:group4:twn").encode(x).scales.tolist() == [3, 5]
    assert Quantizer.parse("binary:block2x4:xnor").encode(x).scales.tolist() == [2.5, 5]


def test_xnor_is_the_mean_magnitude_and_the_best_scale_for_signs():
    rows = normal(30, 50)
    scales = ScaleChoice.parse("xnor").scales(BINARY, rows)
    np.testing.assert_allclose(scales, np.abs(rows).mean(axis=1, dtype=np.float64), rtol=1e-6)
    for choice in (ABSMAX, *SEARCHES):
        other = squared_errors(BINARY, rows, choice.scales(BINARY, rows))
        assert (squared_errors(BINARY, rows, scales) <= other * (1 + 1e-6)).all()


def rep_q_vit(x, bits):
    """The scale search of RepQ-ViT for its log-sqrt2 quantizer, and what it makes of x; codes that need zero are left as NaN."""
    least, best = np.inf, None
    for percent in (99.9, 99.99, 99.999):
        scale = np.percentile(x, percent).astype(np.float32)
        with np.errstate(divide="ignore"):
            q = np.clip(np.round(-2 * np.log2(x / scale)), 0, None)
        values = scale * 2.0 ** -np.ceil(q / 2) * np.where(q % 2 == 1, np.sqrt(2), 1)
        values = np.where(q >= 2**bits - 1, 0, values)  # the last code is spent on zero
        error = ((values - x) ** 2).sum()
        if error < least:
            least, best = error, (scale, values)
    return best


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_repq_is_rep_q_vits_search(bits):
    scores = np.random.default_rng(bits).normal(size=(300, 64)) * 3
    x = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    x = x.astype(np.float32)
    scale, values = rep_q_vit(x, bits)
    tensor = Quantizer.parse(f"ulogsqrt2_{bits}:tensor:repq").encode(x)
    assert tensor.scales[0] == scale
    np.testing.assert_allclose(tensor.decode(), values, rtol=1e-6)


def test_fpq_tries_a_hundred_largest_values_from_a_hundredth_up():
    rows = normal(20, 64)
    candidates = [np.float32(gamma) * ABSMAX.scales(E2M1, rows) for gamma in np.linspace(0.01, 1.2, 100)]
    errors = np.array([squared_errors(E2M1, rows, scales) for scales in candidates])
    found = squared_errors(E2M1, rows, ScaleChoice.parse("fpq").scales(E2M1, rows))
    np.testing.assert_allclose(found, errors.min(axis=0), rtol=1e-6)


@pytest.mark.parametrize("choice", ["lsq", "repq", "fpq"])
def test_every_search_gives_usable_scales(choice):
    for magnitude in (0, 1e-45, 1e-38, 1.0, 2e38):
        rows = np.float32([[magnitude, -magnitude / 3]])
        for fmt in ALL:
            scales = ScaleChoice.parse(choice).scales(fmt, rows)
            assert np.isfinite(scales).all()
            assert (scales >= np.finfo(np.float32).tiny).all()
            assert magnitude or scales == 1


@pytest.mark.parametrize("storage", ["power_of_two", "e8m0"])
@pytest.mark.parametrize("fmt", ALL, ids=lambda fmt: fmt.name)
def test_a_search_finds_the_best_power_of_two(storage, fmt):
    rows = normal(30, 40, spread=0.01)
    powers = [np.full(len(rows), 2.0**exponent, np.float32) for exponent in range(-24, 3)]
    full = ABSMAX.scales(fmt, rows)
    errors = np.array([np.where(power >= full / 20, squared_errors(fmt, rows, power), np.inf) for power in powers])
    found = MSE.stored(fmt, rows, ScaleStorage.parse(storage)).decode()
    np.testing.assert_allclose(squared_errors(fmt, rows, found), errors.min(axis=0), rtol=1e-6)


@pytest.mark.parametrize("storage", ["power_of_two", "e8m0"])
@pytest.mark.parametrize("choice", ["absmax", "percentile90"])
def test_a_stored_absmax_or_percentile_clips_nothing_more(storage, choice):
    rows = normal(50, 40)
    wanted = ScaleChoice.parse(choice).scales(INT4, rows)
    found = ScaleChoice.parse(choice).stored(INT4, rows, ScaleStorage.parse(storage)).decode()
    assert (found >= wanted).all()
    assert (found < 2 * wanted).all()


@pytest.mark.parametrize("storage", ["float32", "power_of_two", "e8m0", "float8_e4m3fn", "double"])
def test_searching_among_what_can_be_stored_beats_storing_what_was_found(storage):
    rows, kind = normal(600, 32), ScaleStorage.parse(storage)
    free = MSE.scales(INT4, rows)
    second = kind.second_scales(free, np.ones(len(rows), bool))
    rounded = squared_errors(INT4, rows, kind.store(free, second).decode())
    searched = squared_errors(INT4, rows, MSE.stored(INT4, rows, kind).decode())
    assert (searched <= rounded * (1 + 1e-6)).all()
    if kind.exact or kind.powers_of_two:  # second scales of two choices differ
        refined = squared_errors(INT4, rows, ScaleChoice.parse("lsq").stored(INT4, rows, kind).decode())
        assert (refined <= searched).all()


@pytest.mark.parametrize(
    "text",
    ["absmax", "mse", "percentile99.9", "percentile100", "percentile50", "percentile99.99", "lsq", "repq", "fpq", "twn", "xnor"],
)
def test_the_text_form_round_trips(text):
    assert str(ScaleChoice.parse(text)) == text
    assert ScaleChoice.parse(str(ScaleChoice.parse(text))) == ScaleChoice.parse(text)


def test_the_text_form_is_in_shortest_terms():
    assert str(ScaleChoice.parse("percentile099.90")) == "percentile99.9"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("max", "nearest: absmax"),
        ("twin", "nearest: twn"),
        ("MSE", "nearest: mse"),
        ("percentile", "nearest: percentile99.9"),
        ("percentile-1", "nearest: percentile99.9"),
        ("percentile99.", "nearest: percentile99.9"),
        ("percentile1e2", "nearest: percentile99.9"),
        ("percentilenan", "nearest: percentile99.9"),
    ],
)
def test_an_unknown_choice_names_the_nearest(text, choice):
    with pytest.raises(KeyError, match=exactly(f"scale choice must be a known name, not {text!r}; {choice}")):
        ScaleChoice.parse(text)


@pytest.mark.parametrize("percent", ["0", "0.0", "101", "100.1"])
def test_a_percentile_is_above_zero_and_at_most_a_hundred(percent):
    with pytest.raises(ValueError, match=exactly(f"percentile must be above 0 and at most 100, not {percent}")):
        ScaleChoice.parse(f"percentile{percent}")


@pytest.mark.parametrize("choice", ["absmax", "mse"])
@pytest.mark.parametrize("name", ["e8m2", "ue9m3", "e10m0"])
def test_a_format_that_reaches_beyond_float32_is_scaled_to_what_float32_carries(name, choice):
    x = np.float32([1000, 3])
    decoded = Quantizer.parse(f"{name}:tensor:{choice}").encode(x).decode()
    assert np.abs(decoded / x - 1).max() < 0.5


@pytest.mark.parametrize("name", ["pot4", "ulog2_4", "int8"])
def test_the_largest_float32_can_be_scaled(name):
    x = np.float32([3.4e38])
    assert Quantizer.parse(f"{name}:tensor:mse").encode(x).decode()[0] > 1e38


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_leaves_no_usable_scale_is_refused(value):
    with pytest.raises(ValueError, match=r"^values to scale for int4 must be finite, not NaN or Inf in 1 elements$"):
        Quantizer.parse("int4").encode(np.float32([value, 1]))


@pytest.mark.parametrize("text", ["percentile99.99999", "percentile0.00001", "percentile100", "percentile99.9"])
def test_a_percentile_keeps_its_digits(text):
    assert str(ScaleChoice.parse(text)) == text


def test_a_given_scale_is_taken_whatever_the_values_are():
    rows = np.stack([normal(7), np.zeros(7, np.float32), normal(7, spread=1e6)])
    np.testing.assert_array_equal(ScaleChoice.parse("at0.0123").scales(INT4, rows), np.full(3, np.float32(0.0123)))
    np.testing.assert_array_equal(ScaleChoice.parse("at1,0.5,1e-30").scales(INT4, rows), np.float32([1, 0.5, 1e-30]))


@pytest.mark.parametrize("text", ["at0.0123", "at1e-05,0.25,3.4028235e+38", "at0.1", "at7.0"])
def test_given_scales_round_trip(text):
    assert str(ScaleChoice.parse(text)) == text


def test_given_scales_are_written_as_the_shortest_decimals_of_float32():
    scales = np.random.default_rng(0).integers(1, 0x7F800000, 1000, dtype=np.uint32).view(np.float32)
    choice = ScaleChoice.at(scales)
    assert ScaleChoice.parse(str(choice)) == choice
    np.testing.assert_array_equal(np.float32(choice.given), scales)
    assert str(ScaleChoice.parse("at0.100000001490116")) == "at0.1"


@pytest.mark.parametrize(("text", "found"), [("at0", "0.0"), ("at1e39", "1e+39"), ("at1,0.0,2", "0.0"), ("at1e-50", "1e-50")])
def test_a_given_scale_is_finite_and_positive(text, found):
    with pytest.raises(ValueError, match=exactly(f"scale given must be finite and positive, not {found}")):
        ScaleChoice.parse(text)


def test_given_scales_are_as_many_as_the_groups():
    with pytest.raises(ValueError, match=exactly("scales given must be 3, one for each group of values, or one for all, not 2")):
        ScaleChoice.parse("at1,2").scales(INT4, np.ones((3, 4), np.float32))


def test_a_storage_may_not_change_a_given_scale():
    rows = np.ones((2, 4), np.float32)
    power_of_two = ScaleStorage.parse("power_of_two")
    held = ScaleChoice.parse("at0.25,4").stored(INT4, rows, power_of_two)
    np.testing.assert_array_equal(held.decode(), np.float32([0.25, 4]))
    with pytest.raises(ValueError, match=exactly("scale given must be one that power_of_two holds, not 0.3; nearest: 0.25")):
        ScaleChoice.parse("at0.25,0.3").stored(INT4, rows, power_of_two)
