import numpy as np
import pytest

import formats
from formats import Quantizer
from formats.scaling import MSE_FRACTIONS, ScaleChoice
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
        candidates = [np.float32(fraction) * ABSMAX.scales(fmt, rows) for fraction in MSE_FRACTIONS]
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


@pytest.mark.parametrize("text", ["absmax", "mse", "percentile99.9", "percentile100", "percentile50", "percentile99.99"])
def test_the_text_form_round_trips(text):
    assert str(ScaleChoice.parse(text)) == text
    assert ScaleChoice.parse(str(ScaleChoice.parse(text))) == ScaleChoice.parse(text)


def test_the_text_form_is_in_shortest_terms():
    assert str(ScaleChoice.parse("percentile099.90")) == "percentile99.9"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("max", "nearest: absmax"),
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
