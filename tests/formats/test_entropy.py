import numpy as np
import pytest

import formats
from formats.entropy import BINS, LEAST_BINS, Histograms
from formats.scale_rules import KL_FRACTIONS, RULES
from formats.scaling import ScaleChoice
from tests.formats.samples import exactly, normal

NAMES = ("int4", "int8", "e2m1", "e3m0", "post4", "pot4", "nf4", "binary", "uint4", "ulogsqrt2_4")
KL, ABSMAX, MSE = (ScaleChoice.parse(name) for name in ("kl", "absmax", "mse"))


def reference(fmt, row, scale):
    """The definition, one bin after the other."""
    magnitudes = np.abs(row) if fmt.signed else np.maximum(row, 0)
    bins = min(BINS, max(LEAST_BINS, len(row) // 8))
    width = float(magnitudes.max()) / bins
    counts = [0.0] * bins
    for value in magnitudes:
        if value > 0 or 0 not in fmt.values:
            counts[min(int(float(value) / width), bins - 1)] += 1
    middles = [np.float32((i + 0.5) * width) for i in range(bins)]
    inside = [i for i in range(bins) if float(middles[i]) <= float(scale) * float(fmt.largest)]
    beyond = sum(counts) - sum(counts[i] for i in inside)
    if not any(counts[i] for i in inside):
        return np.inf
    p = {i: counts[i] + (beyond if i == inside[-1] else 0) for i in inside}
    cells = {}
    for i in inside:
        cells.setdefault(int(fmt.encode(middles[i], scale)), []).append(i)
    q = {}
    for members in cells.values():
        filled = [i for i in members if p[i] > 0]
        for i in filled:
            q[i] = sum(counts[j] for j in members) / len(filled)
    total_p, total_q = sum(p.values()), sum(q.values())
    if any(q[i] == 0 for i in q):
        return np.inf
    return sum(p[i] / total_p * np.log(p[i] / total_p / (q[i] / total_q)) for i in q)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [50, 3000])
def test_divergences_are_those_of_the_definition(name, length):
    fmt = formats.get(name)
    rows = normal(2, length, seed=3)
    rows[1, ::3] = 0
    rows[1, 1] = 9
    magnitudes = np.abs(rows) if fmt.signed else np.maximum(rows, 0)
    histograms = Histograms(fmt, magnitudes, None)
    for fraction in (1.0, 0.6, 0.3, 0.02):
        scales = (magnitudes.max(axis=1) * np.float32(fraction) / fmt.largest).astype(np.float32)
        expected = [reference(fmt, row, scale) for row, scale in zip(rows, scales, strict=True)]
        np.testing.assert_allclose(histograms.divergences(scales), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_the_best_of_its_candidates(name):
    fmt = formats.get(name)
    rows = normal(4, 500)
    full = ABSMAX.scales(fmt, rows)
    histograms = Histograms(fmt, np.abs(rows) if fmt.signed else np.maximum(rows, 0), None)
    candidates = np.array([histograms.divergences((full * fraction).astype(np.float32)) for fraction in KL_FRACTIONS])
    np.testing.assert_array_equal(histograms.divergences(KL.scales(fmt, rows)), candidates.min(axis=0))


@pytest.mark.parametrize("name", ["int4", "e2m1", "post4", "nf4"])
def test_heavy_tails_are_cut_off(name):
    """A few values far out cost all others their resolution; the error of most of them falls by a lot."""
    fmt, x = formats.get(name), normal(1, 20000, seed=1)
    x[0, :4] = 60, -80, 70, -100
    kl, absmax = KL.scales(fmt, x), ABSMAX.scales(fmt, x)
    assert kl < 0.1 * absmax
    middle = np.sort(np.abs(x[0]))[: -len(x[0]) // 1000]
    errors = [np.square(fmt.quantize(middle, scale) - middle).mean() for scale in (kl, absmax)]
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize("name", ["int4", "int8", "e2m1", "post4", "uint8"])
def test_uniform_values_keep_nearly_the_whole_range(name):
    fmt = formats.get(name)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 20000)).astype(np.float32)
    assert KL.scales(fmt, x) >= 0.94 * ABSMAX.scales(fmt, x)


def test_zeros_do_not_count_where_there_is_a_level_of_zero():
    x = normal(1, 5000)
    with_zeros = np.concatenate([x, np.zeros_like(x)], axis=1)
    for name in ("int4", "e2m1"):
        fmt = formats.get(name)
        bins = Histograms(fmt, np.abs(with_zeros), None).counts
        assert bins.sum() == 5000
        assert Histograms(formats.get("binary"), np.abs(with_zeros), None).counts.sum() == 10000


def test_values_of_no_weight_do_not_count():
    rows = normal(3, 2000)
    weights = np.ones_like(rows)
    weights[:, 1000:] = 0
    rows[:, 1001:] *= 0.1
    rows[:, 1000] = np.abs(rows[:, :1000]).max(axis=1)  # the range stays
    other = rows.copy()
    other[:, 1001:] *= -0.5
    found = KL.scales(formats.get("int4"), rows, weights)
    np.testing.assert_array_equal(found, KL.scales(formats.get("int4"), other, weights))
    assert (found != KL.scales(formats.get("int4"), rows)).any()


@pytest.mark.parametrize("storage", ["power_of_two", "e8m0", "float8_e4m3fn", "double"])
def test_stored_scales_and_groups(storage):
    x = normal(8, 100, seed=2)
    x[0, 0] = 40
    quantizer = formats.Quantizer.parse(f"int4:group32:kl:{storage}")
    encoded = quantizer.encode(x)
    assert encoded.scales.shape == (32,)
    assert encoded.scales[0] < 40 / 7
    assert str(quantizer) == f"int4:group32:kl:{storage}"


def test_an_activation_takes_it():
    sample = normal(30000)
    sample[:3] = 50
    quantizer = formats.Quantizer.parse("int4:tensor:kl")
    assert quantizer.static
    fmt, scale = quantizer.fit(sample)
    assert fmt is formats.get("int4")
    assert scale < 0.2 * 50 / 7


def test_a_row_of_zeros_takes_one_and_nan_is_refused():
    rows = np.zeros((2, 10), np.float32)
    rows[1] = normal(10)
    assert KL.scales(formats.get("int4"), rows)[0] == 1
    rows[1, 2] = np.nan
    with pytest.raises(ValueError, match=exactly("values to scale for int4 must be finite, not NaN or Inf in 1 elements")):
        KL.scales(formats.get("int4"), rows)


def test_it_is_listed_with_the_others():
    assert RULES["kl"].searches
    assert RULES["kl"].takes_weights
    with pytest.raises(KeyError, match="kl"):
        ScaleChoice.parse("kll")
