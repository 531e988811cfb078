"""Which of a few tiles is the fastest: measured once for each product on a device, the first one where kernels are interpreted."""

from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np
from triton.runtime.errors import OutOfResources

from formats.errors import InvalidValueError
from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.launching import Tile
from hwmodels.gpu.timing import CudaBench

_FOUND: dict[Hashable, Tile] = {}


def fastest(key: Hashable, candidates: Sequence[Tile], launch: Callable[[Tile], None]) -> Tile:
    """Return the candidate whose ``launch`` has the least median time, with the caches emptied before each.

    A candidate that needs more registers or shared memory than there are is left out; ``ValueError`` where none is left. What was
    found for ``key`` holds until the process ends. Where kernels are only compiled, all candidates are. Nothing must be captured
    into a CUDA graph the first time.
    """
    if environment.INTERPRETED or len(candidates) == 1:
        return candidates[0]
    if environment.is_compiling():
        for tile in candidates:
            launch(tile)
        return candidates[0]
    if key not in _FOUND:
        fitting = [tile for tile in candidates if _fits(tile, launch)]
        if not fitting:
            raise InvalidValueError(f"tile of a kernel must fit the device, not need more than it has, as all {len(candidates)} do")
        _FOUND[key] = min(fitting, key=lambda tile: float(np.median(_bench().cold(lambda: launch(tile)))))
    return _FOUND[key]


def _fits(tile: Tile, launch: Callable[[Tile], None]) -> bool:
    try:
        launch(tile)
    except OutOfResources:
        return False
    return True


@cache
def _bench() -> CudaBench:
    return CudaBench()
