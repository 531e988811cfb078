"""Formats that are nothing but a table of values."""

import numpy as np

from formats.format import Format

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


def build(name: str, values: tuple[float, ...], summary: str) -> Format:
    """Build a format whose code i is worth ``values[i]``; as many values as codes, each rounded to float32."""
    mantissa, exponent = np.frexp(np.array(values, np.float32).astype(np.float64))
    return Format(
        name=name,
        bits=len(values).bit_length() - 1,
        significand=(mantissa * 2**24).astype(np.int64),
        exponent=exponent.astype(np.int64) - 24,
        root=np.zeros(len(values), np.int64),
        summary=summary,
    )


def nf4() -> Format:
    """``nf4``: the 16 levels of NormalFloat."""
    return build("nf4", NF4, "NormalFloat, 16 levels at quantiles of a normal distribution")
