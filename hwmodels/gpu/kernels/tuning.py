"""Which of a few tiles is the fastest: measured once for each product on a device, the first one where kernels are interpreted."""

from collections.abc import Callable, Hashable, Sequence

import triton
from triton.runtime.errors import OutOfResources

from formats.errors import InvalidValueError
from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.launching import Tile

_FOUND: dict[Hashable, Tile] = {}
#: how long candidates are measured, milliseconds
_WARMUP_MS, _REPEAT_MS = 5, 20


def fastest(key: Hashable, candidates: Sequence[Tile], launch: Callable[[Tile], None]) -> Tile:
    """Return the candidate whose ``launch`` has the least median time, with the caches emptied before each.

    A candidate that needs more registers or shared memory than there are is left out; ``ValueError`` where none is left. What was
    found for ``key`` holds until the process ends. Nothing must be captured into a CUDA graph the first time.
    """
    if environment.INTERPRETED or len(candidates) == 1:
        return candidates[0]
    if key not in _FOUND:
        times = {tile: time for tile in candidates if (time := _milliseconds(tile, launch)) is not None}
        if not times:
            raise InvalidValueError(f"tile of a kernel must fit the device, not need more than it has, as all {len(candidates)} do")
        _FOUND[key] = min(times, key=lambda tile: times[tile])
    return _FOUND[key]


def _milliseconds(tile: Tile, launch: Callable[[Tile], None]) -> float | None:
    try:
        return float(triton.testing.do_bench(lambda: launch(tile), warmup=_WARMUP_MS, rep=_REPEAT_MS, return_mode="median"))
    except OutOfResources:
        return None
