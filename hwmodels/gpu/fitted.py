"""The time of a matrix product on one GPU by one family of kernels, fitted to timings.

    t = launch + max(waves * tile time, bytes / (efficiency * bandwidth))

A tile of the result, ``tile_rows`` by ``tile_columns``, takes the time of its multiplications at a share of one multiprocessor's
peak rate; tiles run in waves of as many as there are multiprocessors. Kernels that split the depth give the multiprocessors that
would be idle a part of it. The form is that of wave-aware analytic models (compare Zhang et al., LLMCompass, ISCA 2024); the tile,
and whether the depth is split, are chosen by the fit, since they differ from kernel to kernel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from formats.errors import InvalidValueError
from hwmodels.gpu import roofline
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.gemm import Gemm

#: tiles that a fit chooses from
TILE_ROWS, TILE_COLUMNS = (16, 64, 128), (64, 128, 256)
#: no part of a split depth is shallower
SHALLOWEST = 128
#: fewer timings than parameters and one to check them by settle nothing
FEWEST_TIMINGS = 6
#: launch time in seconds, share of the peak rate, share of the bandwidth: where the fit begins, and between what it stays
_START = (5e-6, 0.6, 0.8)
_LOW, _HIGH = (1e-7, 0.01, 0.01), (1e-3, 1.0, 1.2)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A matrix product and how long it took."""

    gemm: Gemm
    seconds: float


@dataclass(frozen=True, kw_only=True)
class FamilyFit:
    """What a family of kernels does with a device."""

    launch_seconds: float
    #: shares of the peak rate and of the data sheet's bandwidth
    rate_share: float
    bandwidth_share: float
    tile_rows: int
    tile_columns: int
    splits: bool = False

    def seconds(self, gemm: Gemm, device: GpuDevice) -> float:
        """Return the predicted time, never below the roofline."""
        tiles = gemm.products * math.ceil(gemm.rows / self.tile_rows) * math.ceil(gemm.columns / self.tile_columns)
        waves = math.ceil(tiles / device.multiprocessors)
        rate = device.operations_per_second(gemm.arithmetic) / device.multiprocessors * self.rate_share
        parts = min(max(device.multiprocessors // tiles, 1), max(gemm.depth // SHALLOWEST, 1)) if self.splits else 1
        compute = waves * 2.0 * self.tile_rows * self.tile_columns * gemm.depth / parts / rate
        memory = gemm.bytes / (device.bytes_per_second * self.bandwidth_share)
        return max(self.launch_seconds + max(compute, memory), roofline.seconds(gemm, device))


def fit(timings: Sequence[Timing], device: GpuDevice) -> FamilyFit:
    """Return the least-squares fit of the logarithms of times; ``ValueError`` for too few timings."""
    if len(timings) < FEWEST_TIMINGS:
        raise InvalidValueError(f"timings of a family must be at least {FEWEST_TIMINGS} to be fitted, not {len(timings)}")
    found = [_fit_tile(timings, device, *tile) for tile in product(TILE_ROWS, TILE_COLUMNS, (False, True))]
    return min(found, key=lambda each: each[0])[1]


def _fit_tile(timings: Sequence[Timing], device: GpuDevice, rows: int, columns: int, splits: bool) -> tuple[float, FamilyFit]:
    measured = np.log([timing.seconds for timing in timings])

    def made(logarithms: NDArray[np.float64]) -> FamilyFit:
        launch, rate, bandwidth = np.exp(logarithms)
        return FamilyFit(
            launch_seconds=float(launch),
            rate_share=float(rate),
            bandwidth_share=float(bandwidth),
            tile_rows=rows,
            tile_columns=columns,
            splits=splits,
        )

    def residuals(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        family = made(logarithms)
        return np.log([family.seconds(timing.gemm, device) for timing in timings]) - measured

    result = least_squares(residuals, np.log(_START), bounds=(np.log(_LOW), np.log(_HIGH)), loss="soft_l1", f_scale=0.1)
    return float(result.cost), made(result.x)


def leave_one_out(timings: Sequence[Timing], device: GpuDevice) -> NDArray[np.float64]:
    """Return for each timing the relative error of a fit to all the others, float64, signed."""
    errors = []
    for number, left_out in enumerate(timings):
        family = fit([*timings[:number], *timings[number + 1 :]], device)
        errors.append(family.seconds(left_out.gemm, device) / left_out.seconds - 1)
    return np.array(errors)
