"""``tanq{b}``: a tangent's levels, finest near the largest value, for activations after a softmax.

DopQ-ViT's TanQ (Yang et al., arXiv 2408.03291) is meant to keep the power law of such activations by finer steps near 1. **The
paper's formula could not be read; this is a reconstruction from its abstract**, with these conventions:

    y = tan(theta * x) / tan(theta)      x in [0, 1], y on a uniform grid of 2**b levels k / (2**b - 1)
    x_k = atan(k / (2**b - 1) * tan(theta)) / theta

A value takes the nearest level x_k, by the table that decodes it, which errs no more than rounding y would. theta is searched
among ``THETAS`` for the least squared error; small ones are almost uniform. The scale is the largest value (the paper's choice of
it by mean absolute deviation is left out). Negative values count as zero, as in every unsigned format.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.method import Method, register_method
from formats.methods.fitted import FittedQuantizer, usable_scales

#: angles that are tried; below pi / 2
THETAS = np.linspace(0.05, 1.55, 31)


def tangent_levels(bits: int, theta: float) -> NDArray[np.float64]:
    """Return the 2**bits levels in [0, 1] for one angle, ascending."""
    levels: NDArray[np.float64] = np.arctan(np.arange(2**bits) / (2**bits - 1) * np.tan(theta)) / theta
    return levels


@dataclass(frozen=True, kw_only=True)
class TanQ(FittedQuantizer):
    """Levels by a tangent."""

    @property
    def name(self) -> str:
        """First part of the text form."""
        return f"tanq{self.bits}"

    @property
    def table_bits(self) -> int:
        """The levels follow from theta: one float32."""
        return 32

    def row_scales(self, rows: NDArray[np.float32], present: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the largest value."""
        return usable_scales(rows.max(axis=1, initial=0))

    def levels(self, x: NDArray[np.float32], importance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the levels of the best angle."""
        values = np.clip(x.reshape(-1), 0, 1).astype(np.float64)
        weights = importance.reshape(-1).astype(np.float64)
        candidates = [tangent_levels(self.bits, float(theta)) for theta in THETAS]
        errors = [_error(values, weights, levels) for levels in candidates]
        return candidates[int(np.argmin(errors))]


def _error(values: NDArray[np.float64], weights: NDArray[np.float64], levels: NDArray[np.float64]) -> float:
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    return float((weights * (values - nearest) ** 2).sum())


register_method(
    Method(
        pattern="tanq{b}",
        build=lambda bits, granularity: TanQ(bits=bits, granularity=granularity),
        ranges=(("b", 1, 8),),
    )
)
