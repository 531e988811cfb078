import itertools
import math

import numpy as np
import pytest

import formats
from formats import lloyd_max
from formats.clustering import best_cells, of_samples
from formats.codebook import fitted
from formats.lloyd_max import CHI8, HALF_NORMAL, chi8_levels, gaussian_distortion, gaussian_levels
from formats.testing import check_format
from tests.formats.samples import normal


def nearest(levels, x):
    levels = np.asarray(levels)
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]


@pytest.mark.parametrize(
    ("bits", "published"),
    [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497), (5, 0.002499)],
)
def test_distortions_are_those_that_max_published(bits, published):
    """Max (1960), table 1; his last digits for 8 levels and more are a little low."""
    assert gaussian_distortion(bits) == pytest.approx(published, rel=3e-3)


@pytest.mark.parametrize(
    ("bits", "measured"),
    [(2, 0.11748), (3, 0.034511), (4, 0.0095034), (5, 0.0025094), (6, 0.00064932), (7, 0.00016441), (8, 4.1476e-5)],
)
def test_distortions_are_those_that_q_palette_measured(bits, measured):
    """Table of arXiv 2509.20214's repository, measured on samples."""
    assert gaussian_distortion(bits) == pytest.approx(measured, rel=1e-2)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_a_distortion_is_the_integral_of_the_squared_error(bits):
    x = np.linspace(-9, 9, 2_000_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    integral = (density * (x - nearest(gaussian_levels(bits), x)) ** 2).sum() * (x[1] - x[0])
    assert gaussian_distortion(bits) == pytest.approx(integral, rel=1e-6)


def test_the_levels_of_two_bits_are_known():
    np.testing.assert_allclose(gaussian_levels(2), [-1.5104, -0.4528, 0.4528, 1.5104], atol=5e-5)


@pytest.mark.parametrize(
    ("density", "count"), [(HALF_NORMAL, 1), (HALF_NORMAL, 8), (HALF_NORMAL, 128), (CHI8, 1), (CHI8, 4), (CHI8, 256)]
)
def test_every_level_is_the_mean_of_its_cell(density, count):
    levels = lloyd_max.solve(density, count)
    assert (np.diff(levels, prepend=0) > 0).all()
    ends = [0.0, *((levels[1:] + levels[:-1]) / 2), density.reach]
    for level, low, high in list(zip(levels, ends, ends[1:], strict=False))[:: max(1, count // 16)]:
        x = np.linspace(low, high, 20001)
        mass = np.array([density.density(v) for v in x])
        mass[[0, -1]] /= 2
        assert level == pytest.approx((mass * x).sum() / mass.sum(), abs=2e-6)


def test_chi8_is_the_length_of_eight_normal_numbers():
    lengths = np.linalg.norm(np.random.default_rng(0).normal(size=(400_000, 8)), axis=1)
    for x in (1.0, 2.0, 2.83, 4.0):
        assert CHI8.tail(x) == pytest.approx((lengths > x).mean(), abs=3e-3)
        assert CHI8.tail_moment(x) == pytest.approx((lengths * (lengths > x)).mean(), abs=1e-2)
    assert CHI8.tail(0) == 1
    assert lloyd_max.distortion(CHI8, np.array(chi8_levels(2))) == pytest.approx(
        ((nearest(chi8_levels(2), lengths) - lengths) ** 2).mean(), rel=1e-2
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_levels_of_few_samples_are_the_best_of_all_ways_to_cut_them(count):
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=9)
        weights = np.random.default_rng(seed + 50).integers(1, 5, 9).astype(float)
        order = np.argsort(x)
        best = math.inf
        for cuts in itertools.combinations(range(1, 9), count - 1):
            cells = np.split(order, cuts)
            best = min(best, sum((weights[c] * (x[c] - np.average(x[c], weights=weights[c])) ** 2).sum() for c in cells))
        levels = of_samples(x, count, weights)
        assert (weights * (x - nearest(levels, x)) ** 2).sum() == pytest.approx(best, rel=1e-9)


def test_cells_are_runs_of_samples():
    assert best_cells(np.array([0.0, 0.1, 5.0, 5.1, 5.2, 9.0]), np.ones(6), 3).tolist() == [0, 2, 5, 6]


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_levels_of_many_samples_beat_those_of_their_distribution(bits):
    x = np.random.default_rng(1).normal(size=100_000)
    own, general = (((nearest(levels, x) - x) ** 2).mean() for levels in (of_samples(x, 2**bits), gaussian_levels(bits)))
    assert own < general
    assert own == pytest.approx(gaussian_distortion(bits), rel=0.1)


def test_levels_do_not_depend_on_the_order_of_samples():
    x = normal(30_000)
    np.testing.assert_array_equal(of_samples(x, 16), of_samples(x[::-1].copy(), 16))


def test_a_weight_is_a_number_of_copies():
    x, copies = normal(300), np.random.default_rng(0).integers(0, 4, 300)
    np.testing.assert_allclose(of_samples(x, 8, copies), of_samples(np.repeat(x, copies), 8), rtol=1e-9)


def test_few_different_samples_are_levels_themselves():
    assert of_samples(np.float32([3, 1, 3, 1, 2]), 4).tolist() == [1, 2, 3]
    assert of_samples(np.empty(0), 4).tolist() == [0]


def test_an_outlier_does_not_stop_the_search():
    x = np.concatenate([np.random.default_rng(0).normal(size=50_000), [1e6]])
    levels = of_samples(x, 4)
    assert levels[-1] == 1e6
    assert ((x - nearest(levels, x)) ** 2).mean() < 0.2


@pytest.mark.parametrize("bits", range(1, 9))
def test_lloydmax_is_a_format(bits):
    fmt = formats.get(f"lloydmax{bits}")
    check_format(fmt)
    np.testing.assert_array_equal(fmt.values, np.float32(gaussian_levels(bits)))
    np.testing.assert_array_equal(fmt.values, -fmt.values[::-1])


@pytest.mark.parametrize("levels", [[0.0], [-1.0, 2.0], [0.5, 1e-3, 3.0], list(range(16)), [1e-45, -1e-45, 0.0, -0.0]])
def test_a_fitted_code_book_is_a_format(levels):
    fmt = fitted("made", np.array(levels), 4, "for a test")
    check_format(fmt)
    distinct = sorted({float(np.float32(level)) for level in levels})
    assert fmt.values[: len(distinct)].tolist() == distinct
    assert fmt.unused == frozenset(range(len(distinct), 16))
    assert fmt.bits == 4


def test_fitted_code_books_of_one_name_have_names_of_their_own():
    first, same, other = (fitted("made", np.array(levels), 2, "") for levels in ([0, 1], [0, 1], [0, 2]))
    assert first.name == same.name != other.name
    assert first.name.startswith("made_")
