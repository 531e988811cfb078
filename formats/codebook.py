"""Formats that are nothing but a table of values."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from formats.format import Format
from formats.lloyd_max import gaussian_levels

#: the quantiles of a normal distribution that QLoRA stores weights by (Dettmers et al., arXiv 2305.14314, appendix E), as float32
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def build(name: str, values: Sequence[float], summary: str, unused: frozenset[int] = frozenset()) -> Format:
    """Build a format whose code i is worth ``values[i]``, rounded to float32; one for each code, all different but ``unused``."""
    mantissa, exponent = np.frexp(np.array(values, np.float32).astype(np.float64))
    return Format(
        name=name,
        bits=len(values).bit_length() - 1,
        significand=(mantissa * 2**24).astype(np.int64),
        exponent=exponent.astype(np.int64) - 24,
        root=np.zeros(len(values), np.int64),
        unused=unused,
        summary=summary,
    )


def fitted(name: str, levels: NDArray[np.floating], bits: int, summary: str) -> Format:
    """Build a format of ``bits`` from at most 2**bits levels found for some data, ascending; codes beyond them are unused.

    Its name ends in a digest of its levels, so that two fits never share one.
    """
    kept = np.unique(levels.astype(np.float32) + np.float32(0))  # +0 for -0
    digest = hashlib.sha256(kept.tobytes()).hexdigest()[:12]
    missing = 2**bits - len(kept)
    values = [*kept.tolist(), *[float(kept[-1])] * missing]
    return build(f"{name}_{digest}", values, summary, frozenset(range(len(kept), 2**bits)))


def nf4() -> Format:
    """``nf4``: the 16 levels of NormalFloat."""
    return build("nf4", NF4, "NormalFloat, 16 levels at quantiles of a normal distribution")


def gaussian(bits: int) -> Format:
    """``lloydmax{b}``: the levels of least mean squared error for N(0, 1), ascending, rounded to float32."""
    return build(f"lloydmax{bits}", gaussian_levels(bits), f"Lloyd-Max code book of N(0, 1), {bits} bits")
