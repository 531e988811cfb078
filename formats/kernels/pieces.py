"""Cut an array into pieces that fit the first-level cache and give each its scale: one number, or an array of as many."""

from numba.core import types
from numba.extending import overload

from formats.compiled import compiled

#: a power of two, so that no piece straddles a multiple of 2**32
BLOCK = 2048


def scale_at(scale, i):  # type: ignore[no-untyped-def]
    """Return element ``i``'s scale, whether ``scale`` is a number or an array."""
    raise NotImplementedError("only compiled code calls this")


@overload(scale_at)
def _scale_at(scale, i):  # type: ignore[no-untyped-def]
    if isinstance(scale, types.Array):
        return lambda scale, i: scale[i]
    return lambda scale, i: scale


@compiled
def shares_one_scale(scales, repeat, start, stop):  # type: ignore[no-untyped-def]
    """Whether elements ``start`` to ``stop`` of the whole array have the same scale."""
    return len(scales) == 1 or start // repeat == (stop - 1) // repeat


@compiled
def first_scale(scales, repeat, start):  # type: ignore[no-untyped-def]
    """Return the scale of element ``start``."""
    return scales[(start // repeat) % len(scales)]


@compiled
def spread_scales(scales, repeat, start, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the scales of the elements from ``start`` on."""
    position = 0
    while position < len(out):
        turn = ((start + position) // repeat) % len(scales)
        if repeat == 1:
            end = min(len(out), position + len(scales) - turn)
            out[position:end] = scales[turn : turn + end - position]
        else:
            end = min(len(out), position + repeat - (start + position) % repeat)
            out[position:end] = scales[turn]
        position = end


@compiled
def piece_end(p, scale_count, repeat, offset, begin, stop):  # type: ignore[no-untyped-def]
    """Return where a piece ends that begins at ``begin``: with the run of its scale if that is long and nothing is kept aside."""
    if p.closed or p.few:
        run_end = stop if scale_count == 1 else min(stop, (begin // repeat + 1) * repeat)
        if run_end - begin >= BLOCK:
            return run_end
    return min(stop, begin + BLOCK - (offset + begin) % BLOCK)
