import numpy as np
import pytest

from dse.ptq.grid import grid
from formats import Quantizer
from tests.formats.samples import assert_same_bits, exactly, normal

QUANTIZERS = (
    *(
        "int4:tensor",
        "e2m1:channel:mse",
        "post4:group5",
        "pot4:block2x4:mse:e8m0",
        "nf4:group4:absmax:double",
        "ternary:channel:twn",
    ),
    *("mxfp4", "mxint8", "nvfp4", "llmfp4:channel", "lloydfit3:group8", "tanq4:block2x4"),
)
WEIGHT = normal(6, 5, 3, 3)


@pytest.mark.parametrize("text", QUANTIZERS)
def test_codes_go_in_and_come_out_as_the_same_tensor(text):
    encoded = Quantizer.parse(text).encode(WEIGHT)
    found = grid(encoded)
    again = found.store(encoded.codes)
    assert type(again) is type(encoded)
    assert_same_bits(again.decode(), encoded.decode())
    np.testing.assert_array_equal(again.rows, encoded.rows)
    assert again.storage_bits == encoded.storage_bits


@pytest.mark.parametrize("text", QUANTIZERS)
def test_stored_codes_decode_to_the_levels_that_they_stand_for(text):
    found = grid(Quantizer.parse(text).encode(WEIGHT))
    chosen = np.random.default_rng(1).integers(0, len(found.levels), WEIGHT.shape)
    codes = found.codes_of(chosen)
    assert_same_bits(found.store(codes).decode(), found.levels[chosen] * found.factors)
    assert_same_bits(found.values(codes), found.levels[chosen] * found.factors)


@pytest.mark.parametrize("text", QUANTIZERS)
def test_every_weight_lies_between_its_two_levels_or_beyond_the_last(text):
    found = grid(Quantizer.parse(text).encode(WEIGHT))
    below = found.lower_levels(WEIGHT)
    low, high = found.levels[below] * found.factors, found.levels[below + 1] * found.factors
    inside = (WEIGHT / found.factors >= found.levels[0]) & (WEIGHT / found.factors <= found.levels[-1])
    slack = 1e-6 * np.abs(WEIGHT)
    assert ((low <= WEIGHT + slack) & (high >= WEIGHT - slack))[inside].all()
    assert np.isin(below[~inside], (0, len(found.levels) - 2)).all()
    nearest = found.values(found.encode(WEIGHT))
    assert ((nearest == low) | (nearest == high)).all()


@pytest.mark.parametrize("text", ["tritplanes:group16", "pcdvq_d8_m4", "twinlog4"])
def test_methods_without_a_level_for_each_weight_are_refused(text):
    quantizer = Quantizer.parse(text)
    message = (
        "quantizer must give every weight a level of one format times a scale here, as formats (int4:channel:mse), block formats "
        f"(mxfp4), llmfp{{b}}, lloydfit{{b}} and tanq{{b}} do, not be {quantizer}"
    )
    with pytest.raises(ValueError, match=exactly(message)):
        grid(quantizer.encode(WEIGHT))
