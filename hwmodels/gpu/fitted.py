"""The time of a matrix product on one GPU by one family of kernels, fitted to timings.

    t = launch + max(waves * tile time, bytes / (efficiency * bandwidth))

A tile of the result, ``tile_rows`` by ``tile_columns``, takes the time of its multiplications at a share of one multiprocessor's
peak rate; tiles run in waves of as many as there are multiprocessors. Where there are fewer rows than a tile has, it is as high as
the next power of two, and no lower than ``LOWEST``: kernels come in several heights. Kernels that split the depth give the
multiprocessors that would be idle a part of it. The form is that of wave-aware analytic models (compare Zhang et al., LLMCompass,
ISCA 2024); the tile, and whether the depth is split, are chosen by the fit, since they differ from kernel to kernel.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from formats.errors import InvalidValueError
from hwmodels.gpu import roofline
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.gemm import Gemm

#: tiles that a fit chooses from
TILE_ROWS, TILE_COLUMNS = (16, 64, 128), (64, 128, 256)
#: no tile has fewer rows
LOWEST = 8
#: no part of a split depth is shallower
SHALLOWEST = 128
#: fewer timings than parameters and one to check them by settle nothing
FEWEST_TIMINGS = 6
#: launch time in seconds, share of the peak rate, share of the bandwidth: where fits begin, and between what they stay. A share
#: that begins too high may stay there, since no timing depends on it: the other term takes longer
_STARTS = ((5e-6, 0.6, 0.8), (5e-6, 0.6, 0.3), (5e-6, 0.1, 0.8))
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
        height = min(self.tile_rows, max(1 << (gemm.rows - 1).bit_length(), LOWEST))
        tiles = gemm.products * math.ceil(gemm.rows / height) * math.ceil(gemm.columns / self.tile_columns)
        waves = math.ceil(tiles / device.multiprocessors)
        rate = device.operations_per_second(gemm.arithmetic) / device.multiprocessors
        parts = min(max(device.multiprocessors // tiles, 1), max(gemm.depth // SHALLOWEST, 1)) if self.splits else 1
        compute = waves * 2.0 * height * self.tile_columns * gemm.depth / parts / rate / self.rate_share
        memory = gemm.bytes / device.bytes_per_second / self.bandwidth_share
        return max(self.launch_seconds + max(compute, memory), roofline.seconds(gemm, device))

    def all_seconds(self, gemms: Sequence[Gemm], device: GpuDevice) -> NDArray[np.float64]:
        """Return the predicted times of many products at once, float64 of shape (products,), bit for bit those of ``seconds``."""
        return _seconds(_shares(self), _terms(self, _Products.of(gemms, device)))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Products:
    """Matrix products side by side: a number for each in every array."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    depth: NDArray[np.int64]
    products: NDArray[np.int64]
    #: operations a second of one multiprocessor at its peak
    rate: NDArray[np.float64]
    #: seconds of the bytes at the data sheet's bandwidth, and of the roofline
    memory: NDArray[np.float64]
    least: NDArray[np.float64]
    multiprocessors: int

    @staticmethod
    def of(gemms: Sequence[Gemm], device: GpuDevice) -> "_Products":
        sizes = np.array([(each.rows, each.columns, each.depth, each.products) for each in gemms], np.int64).reshape(-1, 4)
        rows, columns, depth, products = sizes.T
        return _Products(
            rows=rows,
            columns=columns,
            depth=depth,
            products=products,
            rate=np.array([device.operations_per_second(each.arithmetic) for each in gemms]) / device.multiprocessors,
            memory=np.array([each.bytes for each in gemms]) / device.bytes_per_second,
            least=np.array([roofline.seconds(each, device) for each in gemms]),
            multiprocessors=device.multiprocessors,
        )


class _Terms(NamedTuple):
    """Seconds that products take at full rates: of the tiles' multiplications, of the bytes, and at the least."""

    compute: NDArray[np.float64]
    memory: NDArray[np.float64]
    least: NDArray[np.float64]


def _terms(tile: FamilyFit, of: _Products) -> _Terms:
    power = np.left_shift(1, np.frexp(of.rows - 1)[1])  # the exponent of a whole number is its length in bits
    height = np.minimum(tile.tile_rows, np.maximum(power, LOWEST))
    tiles = of.products * -(-of.rows // height) * -(-of.columns // tile.tile_columns)
    waves = -(-tiles // of.multiprocessors)
    most = np.maximum(of.depth // SHALLOWEST, 1)
    parts = np.minimum(np.maximum(of.multiprocessors // tiles, 1), most) if tile.splits else 1
    return _Terms(waves * 2.0 * height * tile.tile_columns * of.depth / parts / of.rate, of.memory, of.least)


def _shares(family: FamilyFit) -> tuple[float, float, float]:
    return family.launch_seconds, family.rate_share, family.bandwidth_share


def _seconds(shares: Iterable[float], terms: _Terms) -> NDArray[np.float64]:
    launch, rate, bandwidth = shares
    found: NDArray[np.float64] = np.maximum(launch + np.maximum(terms.compute / rate, terms.memory / bandwidth), terms.least)
    return found


def fit(timings: Sequence[Timing], device: GpuDevice) -> FamilyFit:
    """Return the least-squares fit of the logarithms of times; ``ValueError`` for too few timings."""
    _require_enough(timings)
    of, measured = _Products.of([each.gemm for each in timings], device), np.array([each.seconds for each in timings])
    found = [_refitted(start, _terms(start, of), measured) for start in _starts()]
    return min(found, key=lambda each: each[0])[1]


def _require_enough(timings: Sequence[Timing]) -> None:
    if len(timings) < FEWEST_TIMINGS:
        raise InvalidValueError(f"timings of a family must be at least {FEWEST_TIMINGS} to be fitted, not {len(timings)}")


def _starts() -> list[FamilyFit]:
    return [
        FamilyFit(
            launch_seconds=launch, rate_share=rate, bandwidth_share=bandwidth, tile_rows=rows, tile_columns=columns, splits=splits
        )
        for rows, columns, splits in product(TILE_ROWS, TILE_COLUMNS, (False, True))
        for launch, rate, bandwidth in _STARTS
    ]


def _refitted(start: FamilyFit, terms: _Terms, measured: NDArray[np.float64]) -> tuple[float, FamilyFit]:
    """Return the cost of a fit with the tile of ``start``, found from its other parameters, and the fit."""
    logarithms = np.log(measured)

    def residuals(given: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.log(_seconds(np.exp(given), terms)) - logarithms
        return found

    def derivatives(given: NDArray[np.float64]) -> NDArray[np.float64]:
        launch, rate, bandwidth = np.exp(given)
        compute, memory = terms.compute / rate, terms.memory / bandwidth
        total = launch + np.maximum(compute, memory)
        slopes = [np.full_like(total, launch), np.where(compute >= memory, -compute, 0), np.where(compute < memory, -memory, 0)]
        return np.where(total >= terms.least, np.array(slopes) / total, 0).T

    low, high = np.log(_LOW), np.log(_HIGH)
    first = np.clip(np.log(_shares(start)), low, high)
    result = least_squares(residuals, first, jac=derivatives, bounds=(low, high), loss="soft_l1", f_scale=0.1)
    launch, rate, bandwidth = (float(each) for each in np.exp(result.x))
    return float(result.cost), replace(start, launch_seconds=launch, rate_share=rate, bandwidth_share=bandwidth)


def leave_one_out(
    timings: Sequence[Timing], device: GpuDevice, found: FamilyFit, chosen: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return for each timing, or those of the ``chosen`` numbers, the relative error of a fit to all the others, float64, signed.

    ``found`` is the fit to all timings. Launch time and shares are fitted anew without each timing, beginning from ``found``; the
    tile, and whether the depth is split, are not left out: they stay as all timings together chose them. ``ValueError`` for too
    few timings.
    """
    _require_enough(timings)
    terms = _terms(found, _Products.of([each.gemm for each in timings], device))
    measured = np.array([each.seconds for each in timings])
    errors = []
    for number in range(len(timings)) if chosen is None else chosen:
        others = _Terms(*(np.delete(each, number) for each in terms))
        _, family = _refitted(found, others, np.delete(measured, number))
        errors.append(family.seconds(timings[number].gemm, device) / timings[number].seconds - 1)
    return np.array(errors)
