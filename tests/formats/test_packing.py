import re

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.packing import pack, packed_size, unpack


def slow(row, bits):
    """One row, a bit at a time, as a Python integer."""
    whole = sum(int(code) << (bits * place) for place, code in enumerate(row))
    return list(whole.to_bytes(packed_size(len(row), bits), "little"))


@given(st.integers(1, 16), st.lists(st.integers(0, 2**16 - 1), max_size=20))
def test_a_row_is_the_bytes_of_one_long_number(bits, numbers):
    codes = np.array([number % 2**bits for number in numbers], np.uint16)
    packed = pack(codes, bits)
    assert packed.tolist() == slow(codes, bits)
    np.testing.assert_array_equal(unpack(packed, bits, len(codes)), codes)


@pytest.mark.parametrize("bits", range(1, 17))
@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 1), (0, 4), (4, 0)])
def test_every_row_begins_at_a_byte(bits, shape):
    codes = np.random.default_rng(0).integers(0, 2**bits, shape).astype(np.uint16)
    packed = pack(codes, bits)
    assert packed.shape == (*shape[:-1], packed_size(shape[-1], bits))
    found = unpack(packed, bits, shape[-1])
    assert found.dtype == (np.uint8 if bits <= 8 else np.uint16)
    np.testing.assert_array_equal(found, codes)


def test_four_bits_are_packed_as_onnx_does():
    values = np.array([-8, 7, 0, -1, 3], np.int64)
    tensor = onnx.helper.make_tensor("x", onnx.TensorProto.INT4, [5], pack(values & 15, 4).tobytes(), raw=True)
    assert onnx.numpy_helper.to_array(tensor).astype(int).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        ([1, 2, 8], 3, "codes to pack in 3 bits must be 0 to 7, not 8"),
        ([1, -1], 3, "codes to pack in 3 bits must be 0 to 7, not -1"),
        ([1.0], 3, "codes to pack must be integers, not float64"),
        ([1], 17, "bits of a code must be 1 to 16, not 17"),
    ],
)
def test_what_cannot_be_packed_is_refused(codes, bits, message):
    with pytest.raises((ValueError, TypeError), match=f"^{re.escape(message)}$"):
        pack(codes, bits)


def test_a_wrong_number_of_bytes_is_refused():
    with pytest.raises(ValueError, match=r"^packed codes must be uint8 with 2 bytes in a row, not uint8 with 3$"):
        unpack(np.zeros((4, 3), np.uint8), 3, 5)
