import itertools

import numpy as np
import pytest

import formats
from formats.additive import term_exponents
from formats.testing import check_format
from tests.formats.samples import normal

#: powers of each term as the authors' code lists them, by bits of magnitude, relative to the first (yhhhli/APoT_Quantization)
AUTHORS = {
    2: [[0, 1, 2]],
    3: [[0, 1, 3], [2]],
    4: [[0, 2, 4], [1, 3, 5]],
    5: [[0, 2, 5], [1, 3, 6], [4]],
    6: [[0, 3, 6], [1, 4, 7], [2, 5, 8]],
}


@pytest.mark.parametrize("bits", AUTHORS)
def test_levels_are_the_authors_up_to_their_scale(bits):
    terms = [[0.0, *(2.0**-power for power in powers)] for powers in AUTHORS[bits]]
    sums = sorted(sum(choice) for choice in itertools.product(*terms))
    assert sorted(formats.get(f"uapot{bits}").values.tolist()) == sums
    signed = formats.get(f"apot{bits + 1}").values
    assert sorted(np.abs(signed).tolist()) == sorted(sums * 2)


@pytest.mark.parametrize("name", [f"apot{bits}" for bits in range(2, 9)] + [f"uapot{bits}" for bits in range(1, 9)])
def test_every_width_is_a_format_of_different_dyadic_sums(name):
    fmt = formats.get(name)
    check_format(fmt)
    magnitude_bits = fmt.bits - name.startswith("a")
    assert len(np.unique(fmt.values)) == 2**fmt.bits - name.startswith("a")
    powers = [power for term in term_exponents(magnitude_bits) for power in term]
    assert sorted(powers) == list(range(len(powers)))  # no two terms share a power, none is left out
    assert fmt.unsigned_counterpart == f"uapot{fmt.bits}"
    assert formats.get(fmt.unsigned_counterpart).minimum == 0


def test_the_smallest_are_known():
    assert formats.get("apot2").values.tolist() == [0, 1, 0, -1]
    assert formats.get("apot3").values.tolist() == [0, 1, 0.5, 0.25, 0, -1, -0.5, -0.25]
    assert formats.get("uapot3").values.tolist() == [0, 0.25, 1, 1.25, 0.5, 0.75, 0.125, 0.375]


def test_the_fields_of_a_code_are_its_terms():
    fmt = formats.get("apot5")
    assert fmt.values[0b0_01_10] == 1 + 2.0**-3  # first powers 1, 1/4, 1/16; second 1/2, 1/8, 1/32
    assert fmt.values[0b1_11_01] == -(2.0**-4 + 0.5)
    assert fmt.negative_zero == 0b10000


def test_rounding_is_to_the_nearest_level_as_in_the_paper():
    fmt, x = formats.get("apot4"), normal(500)
    levels = np.unique(fmt.values)
    distance = np.abs(x[:, np.newaxis].astype(np.float64) - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(fmt.quantize(x).astype(np.float64) - x), distance, atol=1e-12)
