"""The IDX file format of the MNIST family, plain or gzip-compressed."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes and return its array; a corrupt file is an error that names it."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise InvalidValueError(f"data file must be a whole gzip stream, not a corrupt one ({error}): {path}") from None
    return parse_idx(raw, path)


def parse_idx(raw: bytes, path: Path) -> NDArray[np.uint8]:
    """Parse the bytes of an IDX file; ``path`` is for messages."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != UNSIGNED_BYTE:
        raise InvalidValueError(f"data file must start with the IDX magic 00 00 08, not {raw[:3].hex(' ') or 'nothing'}: {path}")
    rank = raw[3]
    header = 4 + 4 * rank
    if len(raw) < header:
        raise InvalidValueError(f"data file must hold {header} bytes of IDX header, not {len(raw)}: {path}")
    shape = struct.unpack(f">{rank}I", raw[4:header])
    if len(raw) - header != math.prod(shape):
        raise InvalidValueError(f"data file must hold {math.prod(shape)} bytes for shape {shape}, not {len(raw) - header}: {path}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
