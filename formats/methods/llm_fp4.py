"""``llmfp{b}``: the minifloat of b bits whose exponent and mantissa bits, and real-valued exponent bias, err least.

LLM-FP4 (Liu et al., arXiv 2310.16836) gives a signed minifloat of E exponent and M mantissa bits, without Inf and NaN, a bias b~
that is a real number. Its formulas:

    largest value   c = (2 - 2**-M) * 2**(2**E - 1 - b~)
    b~ for a given largest value   b~ = 2**E - log2(c) + log2(2 - 2**-M) - 1
    step            v = 2**(max(floor(log2|x| + b~), 1) - M - b~),    x^ = v * round(clip(x, -c, c) / v)

**A real bias is a scale.** With the whole-numbered bias b of ``e{E}m{M}`` and s = 2**(b - b~), the step of x is s times the step of
x / s: so x^ is s times the ``e{E}m{M}`` value nearest to x / s, and searching b~ is searching s. The search over c is the scale
choice ``fpq``: 100 candidates from 0.01 to 1.2 of the largest magnitude.

The method here picks the split of the width too: every M from 0 to b - 2, for the whole tensor (the paper lists M = 2 … 6 for 8
bits), by the squared error of the values (the paper compares the outputs of layers).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.format import Format
from formats.granularity import Granularity
from formats.method import Method, MethodQuantizer, register_method
from formats.quantizer import QuantizedTensor, Quantizer
from formats.scaling import ScaleChoice
from formats.tensor_quantizer import StorageBits

_SEARCH = ScaleChoice.parse("fpq")


def real_bias(largest: float, exponent_bits: int, mantissa_bits: int) -> float:
    """Return b~, the bias under which ``largest`` is the largest value."""
    return float(2**exponent_bits - math.log2(largest) + math.log2(2 - 2.0**-mantissa_bits) - 1)


def scale_of_bias(bias: float, exponent_bits: int) -> float:
    """Return the scale of ``e{E}m{M}`` that does what the real-valued ``bias`` does."""
    return float(2.0 ** (2 ** (exponent_bits - 1) - 1 - bias))


def format_search(x: NDArray[np.float32], bits: int, granularity: Granularity) -> tuple[Quantizer, QuantizedTensor]:
    """Return the minifloat of ``bits`` bits, scaled by ``fpq``, of least squared error on ``x``, and ``x`` in it.

    The one with more mantissa bits wins a tie.
    """
    found: list[tuple[float, Quantizer, QuantizedTensor]] = []
    for mantissa_bits in range(bits - 2, -1, -1):
        name = f"e{bits - 1 - mantissa_bits}m{mantissa_bits}"
        quantizer = Quantizer(format_name=name, granularity=granularity, choice=_SEARCH)
        encoded = quantizer.encode(x)
        error = float(np.square(encoded.decode() - x, dtype=np.float64).sum())
        found.append((error, quantizer, encoded))
    _, quantizer, encoded = min(found, key=lambda each: each[0])
    return quantizer, encoded


@dataclass(frozen=True, kw_only=True)
class LlmFp(MethodQuantizer):
    """The best minifloat of a width."""

    bits: int

    @property
    def name(self) -> str:
        """First part of the text form."""
        return f"llmfp{self.bits}"

    @property
    def width(self) -> float:
        """Bits of a code."""
        return self.bits

    @property
    def static(self) -> bool:
        """With one scale it is one format and one scale."""
        return self.granularity.name == "tensor"

    def encode(self, x: NDArray[np.float32]) -> QuantizedTensor:
        """Choose the minifloat and its scales, and quantize ``x``."""
        return format_search(x, self.bits, self.granularity)[1]

    def fit(self, sample: NDArray[Any]) -> tuple[Format, float]:
        """Return the best minifloat for ``sample``, and its scale."""
        if not self.static:
            return super().fit(sample)
        return format_search(sample, self.bits, self.granularity)[0].fit(sample)

    def storage_bits(self, shape: tuple[int, ...]) -> StorageBits:
        """Return the bits of codes and of a float32 for each row."""
        return StorageBits(codes=math.prod(shape) * self.bits, scales=32 * self.granularity.row_count(shape))


register_method(
    Method(
        pattern="llmfp{b}",
        build=lambda bits, granularity: LlmFp(bits=bits, granularity=granularity),
        ranges=(("b", 3, 8),),
    )
)
