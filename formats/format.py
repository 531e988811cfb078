"""A number format with everything that can be done with it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from formats import codec
from formats.codec import Codes
from formats.definition import Definition
from formats.rules import Rules


@dataclass(frozen=True, kw_only=True, eq=False)
class Format(Definition):
    """A definition that encodes, decodes and quantizes arrays."""

    _rules: Rules = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        """Return the call that makes this format."""
        return f"formats.get({self.name!r})"

    def encode(
        self, x: ArrayLike, scale: ArrayLike = 1.0, rounding: str = "nearest_even", overflow: str = "saturate", *, seed: int = 0
    ) -> Codes:
        """Return the code of ``fl32(x / scale)`` for every element: uint8 up to 8 bits, else uint16, shaped like ``x``.

        ``x`` is float32, float16 or bfloat16 of any shape; ``scale`` broadcasts against it. ``rounding`` is ``nearest_even``,
        ``nearest_away``, ``toward_zero`` or ``stochastic`` (drawn from ``seed`` and the element's index alone).
        ``overflow="ieee"`` gives Inf or NaN where the format has them (not together with ``stochastic``). Raises ``ValueError``
        for a NaN that the format cannot hold and for a scale that is not finite and positive, ``TypeError`` for other dtypes.
        """
        return codec.encode(self, self._rules, x, scale, rounding, overflow, seed)

    def decode(self, codes: ArrayLike, scale: ArrayLike = 1.0, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return ``fl32(fl32(value) * scale)`` for every code, float32, shaped like ``codes``, into ``out`` where given."""
        return codec.decode(self, self._rules, codes, scale, out)

    def quantize(
        self,
        x: ArrayLike,
        scale: ArrayLike = 1.0,
        out: NDArray[np.float32] | None = None,
        rounding: str = "nearest_even",
        overflow: str = "saturate",
        *,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Return ``decode(encode(x, scale), scale)`` in one pass, into ``out`` where given (float32, shaped like ``x``)."""
        return codec.quantize(self, self._rules, x, scale, out, rounding, overflow, seed)
