"""Tables of at most 16 levels: compare with every threshold, which goes in vectors where a search does not."""

import numpy as np

from formats.compiled import compiled
from formats.kernels.elements import MAGNITUDE, float_bits
from formats.kernels.pieces import scale_at

#: thresholds that one group of comparisons goes through
GROUP = 8
MOST = 16


@compiled
def _chosen(q, chosen, t, v):  # type: ignore[no-untyped-def]
    """Return what belongs to the last of eight ascending thresholds that ``q`` reaches, else what was chosen before."""
    chosen = v[0] if q >= t[0] else chosen
    chosen = v[1] if q >= t[1] else chosen
    chosen = v[2] if q >= t[2] else chosen
    chosen = v[3] if q >= t[3] else chosen
    chosen = v[4] if q >= t[4] else chosen
    chosen = v[5] if q >= t[5] else chosen
    chosen = v[6] if q >= t[6] else chosen
    return v[7] if q >= t[7] else chosen


@compiled
def _group(x, i):  # type: ignore[no-untyped-def]
    """Return eight numbers as a tuple, which stays in registers."""
    return x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]


@compiled
def quantize_few(x, scale, t, out):  # type: ignore[no-untyped-def]
    """Quantize a piece; NaN stays NaN."""
    lowest = t.few_values[0]
    lower, lower_values = _group(t.few_thresholds, 0), _group(t.few_values, 1)
    worst = np.int32(0)
    if len(t.few_thresholds) == GROUP:
        for i in range(len(x)):
            q = x[i] / scale_at(scale, i)
            worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
            out[i] = _chosen(q, lowest if q == q else q, lower, lower_values) * scale_at(scale, i)
        return worst
    upper, upper_values = _group(t.few_thresholds, GROUP), _group(t.few_values, 1 + GROUP)
    for i in range(len(x)):
        q = x[i] / scale_at(scale, i)
        worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
        level = _chosen(q, lowest if q == q else q, lower, lower_values)
        out[i] = _chosen(q, level, upper, upper_values) * scale_at(scale, i)
    return worst


@compiled
def encode_few(x, scale, t, codes):  # type: ignore[no-untyped-def]
    """Encode a piece; NaN gets the lowest level's code."""
    lowest = t.few_codes[0]
    lower, lower_codes = _group(t.few_thresholds, 0), _group(t.few_codes, 1)
    worst = np.int32(0)
    if len(t.few_thresholds) == GROUP:
        for i in range(len(x)):
            q = x[i] / scale_at(scale, i)
            worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
            codes[i] = _chosen(q, lowest, lower, lower_codes)
        return worst
    upper, upper_codes = _group(t.few_thresholds, GROUP), _group(t.few_codes, 1 + GROUP)
    for i in range(len(x)):
        q = x[i] / scale_at(scale, i)
        worst = max(worst, np.int32(float_bits(q) & MAGNITUDE))
        codes[i] = _chosen(q, _chosen(q, lowest, lower, lower_codes), upper, upper_codes)
    return worst
