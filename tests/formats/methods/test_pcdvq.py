import itertools

import numpy as np
import pytest

from formats import Quantizer, StorageBits
from formats.lloyd_max import chi8_levels, gaussian_distortion
from formats.methods.e8 import directions, nearest_directions, spherical_code
from tests.formats.samples import normal


def relative_error(text, x):
    return np.square(Quantizer.parse(text).encode(x).decode() - x, dtype=np.float64).sum() / np.square(x, dtype=np.float64).sum()


def test_the_shells_of_e8_have_their_known_sizes():
    vectors, lengths = directions()
    found = dict(zip(*np.unique(lengths // 4, return_counts=True), strict=True))
    # squared length 8 has 17520 vectors, 240 of which are twice a shorter one
    assert found == {2: 240, 4: 2160, 6: 6720, 8: 17520 - 240, 10: 30240}
    assert (lengths == (vectors.astype(np.int64) ** 2).sum(axis=1)).all()


def test_every_direction_is_in_the_lattice_and_stands_once():
    vectors, lengths = directions()
    assert (vectors % 2 == vectors[:, :1] % 2).all()  # doubled: all even or all odd
    assert (vectors.sum(axis=1) % 4 == 0).all()
    unit = np.round(vectors / np.sqrt(lengths)[:, np.newaxis], 9)
    assert len(np.unique(unit, axis=0)) == len(vectors)


def test_shortest_vectors_are_the_roots():
    vectors, lengths = directions()
    roots = {tuple(int(x) for x in v) for v in vectors[lengths == 8]}
    pairs = {
        tuple(2 * s if k == i else 2 * t if k == j else 0 for k in range(8))
        for i, j in itertools.combinations(range(8), 2)
        for s in (-1, 1)
        for t in (-1, 1)
    }
    halves = {signs for signs in itertools.product((-1, 1), repeat=8) if signs.count(-1) % 2 == 0}
    assert roots == pairs | halves


def test_directions_are_chosen_as_a_slow_greedy_choice_would():
    vectors, lengths = directions()
    candidates = vectors[:2400].astype(np.int64)
    exact = [(v, int(n)) for v, n in zip(candidates, lengths[:2400], strict=True)]
    chosen, nearest = [0], np.full(len(exact), -2.0)
    while len(chosen) < 16:
        v, n = exact[chosen[-1]]
        dots = candidates @ v
        nearest = np.maximum(nearest, dots * np.abs(dots) / (lengths[:2400] * n))
        chosen.append(int(nearest.argmin()))
    code = spherical_code(4)
    expected = candidates[chosen] / np.sqrt(lengths[chosen])[:, np.newaxis]
    # the first sixteen come from the two shortest shells
    np.testing.assert_array_equal(code, expected.astype(np.float32))


@pytest.mark.parametrize("bits", [3, 8, 12])
def test_a_spherical_code_is_unit_vectors_far_from_each_other(bits):
    code = spherical_code(bits).astype(np.float64)
    assert code.shape == (2**bits, 8)
    np.testing.assert_allclose(np.linalg.norm(code, axis=1), 1, rtol=1e-6)
    cosines = code @ code.T - 2 * np.eye(len(code))
    generator = np.random.default_rng(0)
    random = generator.normal(size=code.shape)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    assert cosines.max() < (random @ random.T - 2 * np.eye(len(code))).max()
    np.testing.assert_array_equal(spherical_code(bits)[: 2 ** (bits - 1)], spherical_code(bits - 1))


@pytest.mark.parametrize("bits", [1, 3, 5, 9])
def test_the_nearest_direction_has_the_largest_inner_product(bits):
    vectors, code = normal(300, 8), spherical_code(bits)
    chosen, dots = nearest_directions(vectors, code)
    products = vectors.astype(np.float64) @ code.T.astype(np.float64)
    np.testing.assert_allclose(dots, products.max(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(products[np.arange(300), chosen], products.max(axis=1), rtol=1e-5, atol=1e-6)


def test_a_tie_goes_to_the_first_direction():
    code = np.tile(spherical_code(2), (12, 1))
    chosen, _ = nearest_directions(normal(50, 8), code)
    assert (chosen < 4).all()


def test_decoding_is_scale_times_magnitude_times_direction():
    x = normal(4, 24)
    tensor = Quantizer.parse("pcdvq_d8_m2:channel").encode(x)
    assert tensor.directions.shape == tensor.magnitudes.shape == (4, 3)
    lengths = np.float32(chi8_levels(2))[tensor.magnitudes] * tensor.scales[:, np.newaxis]
    by_hand = spherical_code(8)[tensor.directions] * lengths[..., np.newaxis]
    np.testing.assert_array_equal(tensor.decode(), by_hand.reshape(4, 24))


def test_no_other_code_of_a_vector_errs_less():
    x = normal(1, 40)
    tensor = Quantizer.parse("pcdvq_d5_m2:channel").encode(x)
    codes = (spherical_code(5)[:, np.newaxis] * np.float32(chi8_levels(2))[:, np.newaxis]).reshape(-1, 8) * tensor.scales[0]
    vectors = x.reshape(5, 8)
    best = np.square(vectors[:, np.newaxis] - codes).sum(axis=2).min(axis=1)
    np.testing.assert_allclose(np.square(vectors - tensor.decode().reshape(5, 8)).sum(axis=1), best, rtol=1e-5)


def test_two_bits_a_value_beat_the_best_scalar_quantizer():
    """Normal values: 9.96 dB, and 10.36 dB with one magnitude bit less and one direction bit more; Lloyd-Max has 9.30 dB."""
    x = normal(64, 1024)
    assert -10 * np.log10(gaussian_distortion(2)) == pytest.approx(9.30, abs=5e-3)
    assert -10 * np.log10(relative_error("pcdvq_d14_m2:channel", x)) == pytest.approx(9.96, abs=0.05)
    assert -10 * np.log10(relative_error("pcdvq_d15_m1:channel", x)) == pytest.approx(10.36, abs=0.05)


def test_directions_matter_more_than_magnitudes():
    x = normal(64, 256)
    assert relative_error("pcdvq_d10_m2", x) < relative_error("pcdvq_d8_m4", x) < relative_error("pcdvq_d6_m6", x)


@pytest.mark.parametrize(
    ("text", "shape", "codes", "scales"),
    [
        ("pcdvq_d14_m2:tensor", (8, 64), 8 * 8 * 16, 32),
        ("pcdvq_d14_m2:channel", (8, 27), 8 * 4 * 16, 8 * 32),
        ("pcdvq_d6_m2:group16", (2, 20), 2 * 3 * 8, 4 * 32),
    ],
)
def test_storage_is_two_codes_for_each_vector(text, shape, codes, scales):
    assert Quantizer.parse(text).storage_bits(shape) == StorageBits(codes=codes, scales=scales)


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
def test_magnitudes_far_from_one(magnitude):
    x = normal(4, 64)
    near, far = (Quantizer.parse("pcdvq_d8_m2").encode(v).decode() for v in (x, (x * magnitude).astype(np.float32)))
    np.testing.assert_allclose(far / magnitude, near, rtol=1e-3)
