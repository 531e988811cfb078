import itertools

import numpy as np
import pytest

import formats
from formats.trits import pack_trits, packed_trits_size, unpack_trits

CODES = np.array([0, 1, 3], np.uint8)


def test_every_byte_of_five_trits_is_its_number_in_base_three():
    rows = np.array(list(itertools.product(CODES, repeat=5)))
    packed = pack_trits(rows)
    digits = {0: 0, 1: 1, 3: 2}
    assert packed[:, 0].tolist() == [sum(digits[int(code)] * 3**place for place, code in enumerate(row)) for row in rows]
    assert len(set(packed[:, 0].tolist())) == 243
    np.testing.assert_array_equal(unpack_trits(packed, 5), rows)


@pytest.mark.parametrize("shape", [(0,), (1,), (4,), (5,), (6,), (3, 128), (2, 3, 17)])
def test_trits_come_back(shape):
    codes = CODES[np.random.default_rng(0).integers(0, 3, shape)]
    packed = pack_trits(codes)
    assert packed.shape == (*shape[:-1], packed_trits_size(shape[-1]))
    np.testing.assert_array_equal(unpack_trits(packed, shape[-1]), codes)


def test_they_are_the_codes_of_ternary():
    x = np.float32([-1, 0, 1, 1, -1, 0])
    codes = formats.get("ternary").encode(x)
    np.testing.assert_array_equal(formats.get("ternary").decode(unpack_trits(pack_trits(codes), 6)), x)


@pytest.mark.parametrize("wrong", [2, 4, 255])
def test_what_is_no_trit_is_refused(wrong):
    with pytest.raises(ValueError, match=f"^codes of ternary must be 0, 1 or 3, not {wrong}$"):
        pack_trits(np.array([0, wrong]))


def test_what_is_no_packed_row_is_refused():
    with pytest.raises(ValueError, match=r"^packed trits must be uint8 with 2 bytes in a row, not uint8 with 1$"):
        unpack_trits(np.zeros(1, np.uint8), 6)
    with pytest.raises(ValueError, match=r"^a byte of packed trits must be 0 to 242, not 243$"):
        unpack_trits(np.array([243], np.uint8), 5)
