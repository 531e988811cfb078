"""Five ternary codes in a byte: 3**5 = 243 of its 256 values, 1.6 bits each."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.errors import InvalidValueError

TRITS_IN_A_BYTE = 5
_PLACES = 3 ** np.arange(TRITS_IN_A_BYTE)
#: digit of a code of ``ternary``: 0b00 is 0, 0b01 is +1, 0b11 is -1; and back
_DIGITS = np.array([0, 1, 255, 2], np.uint8)
_CODES = np.array([0, 1, 3], np.uint8)


def packed_trits_size(count: int) -> int:
    """Return how many bytes a row of ``count`` trits takes."""
    return -(-count // TRITS_IN_A_BYTE)


def pack_trits(codes: ArrayLike) -> NDArray[np.uint8]:
    """Pack codes of ``ternary`` of shape (…, n) into bytes of shape (…, packed_trits_size(n)).

    A byte is d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4 with digits 0, 1, 2 for 0, +1, -1, the first trit as d0. Every row begins at a byte
    of its own, its last byte filled up with 0. Raises ``ValueError`` for what is no code of ``ternary``.
    """
    array = np.atleast_1d(np.asarray(codes))
    wrong = (array < 0) | (array > 3) | (array == 2)
    if wrong.any():
        raise InvalidValueError(f"codes of ternary must be 0, 1 or 3, not {array[wrong].flat[0]}")
    short = -array.shape[-1] % TRITS_IN_A_BYTE
    digits = np.pad(_DIGITS[array], [(0, 0)] * (array.ndim - 1) + [(0, short)])
    grouped = digits.reshape(*array.shape[:-1], digits.shape[-1] // TRITS_IN_A_BYTE, TRITS_IN_A_BYTE)
    packed: NDArray[np.uint8] = (grouped * _PLACES).sum(axis=-1).astype(np.uint8)
    return packed


def unpack_trits(packed: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Unpack rows of bytes (…, packed_trits_size(count)) into codes of ``ternary`` (…, count)."""
    array = np.atleast_1d(np.asarray(packed))
    if array.dtype != np.uint8 or array.shape[-1] != packed_trits_size(count):
        wanted = f"uint8 with {packed_trits_size(count)} bytes in a row"
        raise InvalidValueError(f"packed trits must be {wanted}, not {array.dtype} with {array.shape[-1]}")
    if array.size and int(array.max()) >= 3**TRITS_IN_A_BYTE:
        raise InvalidValueError(f"a byte of packed trits must be 0 to {3**TRITS_IN_A_BYTE - 1}, not {int(array.max())}")
    digits = (array[..., np.newaxis] // _PLACES) % 3
    size = math.prod(array.shape[-1:]) * TRITS_IN_A_BYTE
    codes: NDArray[np.uint8] = _CODES[digits.reshape(*array.shape[:-1], size)[..., :count]]
    return codes
