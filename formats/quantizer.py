"""A format with a scaling policy, and tensors quantized by it."""

import difflib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats.block import BlockFormat
from formats.block_quantizer import BlockQuantizer
from formats.errors import InvalidValueError, UnknownNameError
from formats.format import Format
from formats.granularity import TENSOR, Granularity
from formats.method import find_method, method_examples
from formats.names import unknown_name
from formats.registry import get, scalar
from formats.scale_storage import FLOAT32, ScaleStorage, StoredScales
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import RowTensor, StorageBits, TensorQuantizer

__all__ = ["Granularity", "QuantizedTensor", "Quantizer"]

#: choices whose results do not heed that groups are filled up with zeros
_HEEDLESS = ("absmax", "percentile", "mse", "at")


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A format's name, which values share a scale, how the scale is chosen, and how it is stored.

    Its text form joins the four by colons and round-trips: ``int4:channel:mse``, ``uint8:tensor:percentile99.9``,
    ``nf4:group64:absmax:double``. Storage is left out where it is ``float32``.
    """

    format_name: str
    granularity: Granularity
    choice: ScaleChoice
    storage: ScaleStorage = FLOAT32

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        if self.granularity.name == "block":
            nearest = f"{self.format_name}:group32, or block{{r}}x{{c}} for tiles"
            raise InvalidValueError(f"granularity block must go with a block format, not {self.format_name}; nearest: {nearest}")
        wanted = self.choice.format_name
        if wanted not in (None, self.format_name):
            nearest = f"{self.format_name}:{self.granularity}:lsq"
            raise InvalidValueError(f"choice {self.choice} must go with {wanted}, not {self.format_name}; nearest: {nearest}")

    @staticmethod
    def parse(text: str, *, granularity: str = "tensor", choice: str = "absmax") -> TensorQuantizer:
        """Read the text form of any quantizer; parts left out take the defaults given here, and float32 storage.

        A format's name gives a ``Quantizer``, a block format's a ``BlockQuantizer`` (``mxfp4`` is ``mxfp4:block:absmax``), a
        method's, such as ``tritplanes:group128``, that of ``formats.methods``.
        """
        parts = text.split(":")
        if len(parts) > 4 or not all(parts):
            raise InvalidValueError(
                f"quantizer must be FORMAT[:GRANULARITY[:CHOICE[:STORAGE]]], such as int4:channel:mse, not {text!r}"
            )
        method = find_method(parts[0])
        if method is not None:
            if len(parts) > 2:
                raise InvalidValueError(
                    f"quantizer of a method must be NAME[:GRANULARITY], not {text!r}; nearest: {':'.join(parts[:2])}"
                )
            return method[0].quantizer(method[1], Granularity.parse((*parts, granularity)[1]))
        if isinstance(_format(parts[0]), BlockFormat):
            nearest = f"{parts[0]}:block:absmax"
            if parts[1:] != ["block", "absmax"][: len(parts) - 1]:
                raise InvalidValueError(f"quantizer of a block format must be {nearest}, not {text!r}")
            return BlockQuantizer(format_name=parts[0])
        name, granularity, choice, storage = (*parts, *(granularity, choice, "float32")[len(parts) - 1 :])
        return Quantizer(
            format_name=name,
            granularity=Granularity.parse(granularity),
            choice=ScaleChoice.parse(choice),
            storage=ScaleStorage.parse(storage),
        )

    def __str__(self) -> str:
        """Return the text form."""
        text = f"{self.format_name}:{self.granularity}:{self.choice}"
        return text if self.storage.exact else f"{text}:{self.storage}"

    @property
    def format(self) -> Format:
        """The format itself."""
        return scalar(self.format_name)

    @property
    def formats(self) -> tuple[Format, ...]:
        """The format itself, alone."""
        return (self.format,)

    @property
    def width(self) -> float:
        """Bits of a code."""
        return self.format.bits

    @property
    def static(self) -> bool:
        """Whether it comes down to one scale, under which codes are the nearest."""
        return self.granularity.name == "tensor" and self.choice.by_nearest

    def per_tensor(self) -> "Quantizer":
        """Return the same with one scale for the tensor."""
        return replace(self, granularity=TENSOR)

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Return the format, and the one scale chosen for ``sample``."""
        if not self.static:
            raise InvalidValueError(f"quantizer of an activation must come down to one format and one scale, not be {self}")
        return self.format, float(self.scales(sample)[0])

    def scales(self, x: NDArray[np.float32], importance: ArrayLike | None = None) -> NDArray[np.float32]:
        """Return the chosen scale of each row of ``granularity.to_rows(x)`` as stored, float32 of shape (R,).

        ``importance`` broadcasts against ``x``: how much each value's squared error counts, for choices by error.
        """
        return self.encode(x, importance).scales if not self.choice.by_nearest else self._stored(x, importance).decode()

    def encode(self, x: NDArray[np.float32], importance: ArrayLike | None = None) -> "QuantizedTensor":
        """Choose scales for ``x`` and encode it."""
        rows, weights = self.granularity.to_rows(x), self._weights(x, importance)
        stored = self.choice.stored(self.format, rows, self.storage, weights)
        codes = self.choice.encode(self.format, rows, stored.decode(), weights)
        return QuantizedTensor(quantizer=self, shape=x.shape, rows=codes, stored=stored)

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of codes and scales that a tensor of ``shape`` takes."""
        scales = self.storage.bits(self.granularity.row_count(shape))
        return StorageBits(codes=math.prod(shape) * self.format.bits, scales=scales)

    def _stored(self, x: NDArray[np.float32], importance: ArrayLike | None) -> StoredScales:
        return self.choice.stored(self.format, self.granularity.to_rows(x), self.storage, self._weights(x, importance))

    def _weights(self, x: NDArray[np.float32], importance: ArrayLike | None) -> NDArray[np.float32] | None:
        """Return what each value of the rows counts: 0 where they are filled up."""
        if importance is None:
            heeds = self.choice.name not in _HEEDLESS and self.granularity.pads(x.shape)
            return self.granularity.to_rows(np.ones(x.shape, np.float32)) if heeds else None
        weights = np.broadcast_to(np.asarray(importance, np.float32), x.shape)
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise InvalidValueError("importance must be finite and not negative, not otherwise")
        return self.granularity.to_rows(weights)


def _format(name: str) -> Format | BlockFormat:
    """Return the format called ``name``; the error for an unknown one names a method where that is nearer."""
    try:
        return get(name)
    except UnknownNameError:
        if difflib.get_close_matches(name, method_examples(), cutoff=0.75):
            raise unknown_name("quantizer", name, method_examples()) from None
        raise


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTensor(RowTensor[Quantizer]):
    """A tensor as hardware stores it: codes and scales.

    ``rows`` are codes of shape (R, n), ``stored`` R scales in the quantizer's storage, both laid out as its granularity says.
    """

    stored: StoredScales

    @cached_property
    def scales(self) -> NDArray[np.float32]:
        """The scales that the stored ones stand for, float32 of shape (R,)."""
        return self.stored.decode()

    def decode(self) -> NDArray[np.float32]:
        """Return the float32 values that the codes and scales stand for, in the tensor's own shape."""
        rows = self.quantizer.format.decode(self.rows, self.scales[:, np.newaxis])
        return self.quantizer.granularity.from_rows(rows, self.shape)
