"""Codes of a few bits packed into bytes and back.

Little-endian within a byte: the first code of a row is in the lowest bits, codes may straddle bytes, and each row (the last axis)
begins at a byte of its own, its last byte filled up with zeros. For 4 bits this is how ONNX stores INT4, UINT4 and FLOAT4E2M1.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.codec import Codes
from formats.errors import InvalidTypeError, InvalidValueError


def packed_size(count: int, bits: int) -> int:
    """Return how many bytes a row of ``count`` codes takes."""
    return -(-count * bits // 8)


def pack(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Pack unsigned codes of shape (…, n) into bytes of shape (…, packed_size(n, bits)).

    Raises ``ValueError`` for a width outside 1 to 16 and for a code that does not fit it, ``TypeError`` for what is no integer.
    """
    _check_bits(bits)
    array = np.atleast_1d(np.asarray(codes))
    if array.dtype.kind not in "ui":
        raise InvalidTypeError(f"codes to pack must be integers, not {array.dtype}")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= 2**bits):
        wrong = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise InvalidValueError(f"codes to pack in {bits} bits must be 0 to {2**bits - 1}, not {wrong}")
    if bits in (8, 16):
        return np.ascontiguousarray(array.astype(f"<u{bits // 8}")).view(np.uint8)
    places = np.arange(bits, dtype=np.uint16)
    spread = (array.astype(np.uint16)[..., np.newaxis] >> places).astype(np.uint8) & np.uint8(1)
    return np.packbits(spread.reshape(*array.shape[:-1], array.shape[-1] * bits), axis=-1, bitorder="little")


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> Codes:
    """Unpack rows of bytes (…, packed_size(count, bits)) into codes (…, count): uint8 up to 8 bits, else uint16."""
    _check_bits(bits)
    array = np.atleast_1d(np.asarray(packed))
    if array.dtype != np.uint8 or array.shape[-1] != packed_size(count, bits):
        wanted = f"uint8 with {packed_size(count, bits)} bytes in a row"
        raise InvalidValueError(f"packed codes must be {wanted}, not {array.dtype} with {array.shape[-1]}")
    spread = np.unpackbits(array, axis=-1, count=count * bits, bitorder="little").reshape(*array.shape[:-1], count, bits)
    if bits <= 8:
        return np.packbits(spread, axis=-1, bitorder="little")[..., 0]
    halves = np.packbits(spread, axis=-1, bitorder="little").astype(np.uint16)
    wide: NDArray[np.uint16] = halves[..., 0] | (halves[..., 1] << np.uint16(8))
    return wide


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 16:
        raise InvalidValueError(f"bits of a code must be 1 to 16, not {bits}")
