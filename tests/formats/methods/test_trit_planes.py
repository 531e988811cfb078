import itertools

import numpy as np
import pytest

import formats
from formats import Quantizer
from formats.methods.trit_fit import PAIRS, RIDGE, STARTS, alternate, fit_scales, nearest_planes
from formats.trits import pack_trits
from tests.formats.samples import normal


def squared_error(tensor, x):
    return np.square(tensor.decode() - x, dtype=np.float64).sum()


def slow_alternate(row, first, second, ridge, steps):
    """Ridge regression by ``numpy.linalg.solve`` and, for every element, the best of the nine pairs of trits."""
    nine = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    scales, errors = np.array([first, second]), []

    def planes(scales):
        return nine[np.abs(row[:, np.newaxis] - nine @ scales).argmin(axis=1)]

    chosen = planes(scales)
    errors.append(((row - chosen @ scales) ** 2).sum())
    for _ in range(steps):
        refined = np.linalg.solve(chosen.T @ chosen + ridge * np.eye(2), chosen.T @ row)
        better = planes(refined)
        error = ((row - better @ refined) ** 2).sum()
        if not error < errors[-1]:
            break
        scales, chosen = refined, better
        errors.append(error)
    return np.sort(np.abs(scales))[::-1], errors


@pytest.mark.parametrize("seed", range(12))
def test_alternating_is_the_slow_one(seed):
    row = np.random.default_rng(seed).normal(size=60)
    magnitudes = np.sort(np.abs(row))
    for share, ratio in STARTS[seed % 4 :: 4] * 0.97:  # no two pairs of trits are worth the same
        first = magnitudes[-1] * share / (1 + ratio)
        errors = np.empty(31)
        found = alternate(magnitudes, first, first * ratio, PAIRS, RIDGE, errors)
        expected, slow = slow_alternate(row, first, first * ratio, RIDGE, 30)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_allclose(errors[: len(slow)], slow, rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_never_rises(seed):
    magnitudes = np.sort(np.abs(np.random.default_rng(seed).standard_t(3, size=200)))
    for share, ratio in STARTS:
        errors = np.empty(51)
        first = magnitudes[-1] * share / (1 + ratio)
        alternate(magnitudes, first, first * ratio, PAIRS, RIDGE, errors)
        assert (np.diff(errors) <= 0).all()
        assert errors[-1] >= 0


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.2, 0.34, 0.5, 0.62, 0.8, 0.95, 1.0])
def test_a_tensor_made_of_two_planes_comes_back(ratio):
    generator = np.random.default_rng(int(ratio * 100))
    planes = generator.integers(-1, 2, (2, 30, 128)).astype(np.float32)
    first = np.exp(generator.normal(size=(30, 1)) * 3).astype(np.float32)
    x = first * planes[0] + first * np.float32(ratio) * planes[1]
    decoded = Quantizer.parse("tritplanes:channel").encode(x).decode()
    np.testing.assert_allclose(decoded, x, rtol=2e-6, atol=float(first.max()) * 1e-6)


def test_every_element_takes_the_best_of_the_nine_pairs():
    rows = normal(20, 50)
    scales = fit_scales(rows)
    planes = nearest_planes(rows, scales).astype(np.float64)
    found = np.abs(rows - np.einsum("prn,pr->rn", planes, scales.astype(np.float64)))
    pairs = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
    sums = np.einsum("kp,pr->rk", pairs, scales.astype(np.float64))
    best = np.abs(rows[:, :, np.newaxis] - sums[:, np.newaxis, :]).min(axis=2)
    np.testing.assert_allclose(found, best, atol=1e-12)


def test_no_other_scales_do_much_better():
    rows = normal(10, 128)
    scales = fit_scales(rows)

    def error(scales):
        planes = nearest_planes(rows, scales)
        return np.square(np.einsum("prn,pr->rn", planes.astype(np.float64), scales.astype(np.float64)) - rows).sum(axis=1)

    largest = np.abs(rows).max(axis=1)
    grid = itertools.combinations(np.linspace(0.05, 1, 40), 2)
    best = np.min([error(np.stack([largest * one, largest * other]).astype(np.float32)) for one, other in grid], axis=0)
    assert (error(scales) <= 1.01 * best).all()


def test_two_planes_beat_one_and_lie_between_three_and_four_bits():
    x = normal(64, 256)
    planes = squared_error(Quantizer.parse("tritplanes:group128").encode(x), x)
    assert planes < 0.2 * squared_error(Quantizer.parse("ternary:group128:lsq").encode(x), x)
    assert squared_error(Quantizer.parse("lloydmax4:group128:lsq").encode(x), x) < planes
    assert planes < squared_error(Quantizer.parse("int3:group128:lsq").encode(x), x)


def test_the_planes_are_codes_of_ternary_and_decode_as_such():
    x = normal(6, 5, 7)
    tensor = Quantizer.parse("tritplanes:group8").encode(x)
    assert tensor.codes.shape == (2, *x.shape)
    assert set(np.unique(tensor.codes)) <= {0, 1, 3}
    trits = formats.get("ternary").values[tensor.planes]
    by_hand = np.einsum("prn,pr->rn", trits, tensor.scales.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_equal(tensor.quantizer.granularity.from_rows(by_hand, x.shape), tensor.decode())


def test_storage_is_five_trits_to_a_byte_and_two_scales_for_each_row():
    x = normal(8, 256)
    tensor = Quantizer.parse("tritplanes:group128").encode(x)
    packed = pack_trits(tensor.codes.reshape(2, -1))
    assert tensor.storage_bits.codes == 8 * packed.size
    assert tensor.storage_bits.scales == 32 * tensor.scales.size
    assert tensor.quantizer.width == 3.2


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-20, 1e20, 3e38])
def test_magnitudes_at_the_ends_of_float32(magnitude):
    x = np.float32([[magnitude, -magnitude, magnitude / 2, 0]])
    decoded = Quantizer.parse("tritplanes").encode(x).decode()
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, x, rtol=1e-5, atol=1e-37)
