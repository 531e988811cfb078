"""Levels of least mean squared error for a density, in closed form; for samples see ``formats.clustering``.

A quantizer is best when every level is the mean of what rounds to it and every boundary lies in the middle of two levels (Lloyd,
"Least squares quantization in PCM", IEEE Trans. IT 28(2), 1982, written 1957; Max, "Quantizing for minimum distortion", IRE
Trans. IT 6(1), 1960). For the two densities here, whose logarithms are concave, that fixes the levels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Newton steps, each of which squares the distance to the solution, and grid points that the first guess is made on
_NEWTON_STEPS, _GRID = 60, 1 << 14


@dataclass(frozen=True, kw_only=True)
class Density:
    """A density on [0, inf): itself, its tail integral, and the tail integral of x times it."""

    density: Callable[[float], float]
    tail: Callable[[float], float]
    tail_moment: Callable[[float], float]
    second_moment: float
    #: beyond which nothing matters
    reach: float


def _half_normal_density(x: float) -> float:
    return math.sqrt(2 / math.pi) * math.exp(-x * x / 2)


HALF_NORMAL = Density(
    density=_half_normal_density,
    tail=lambda x: math.erfc(x / math.sqrt(2)),
    tail_moment=_half_normal_density,
    second_moment=1.0,
    reach=12.0,
)


def _chi8_density(x: float) -> float:
    return x**7 * math.exp(-x * x / 2) / 48


def _chi8_tail(x: float) -> float:
    half = x * x / 2
    return math.exp(-half) * (1 + half + half**2 / 2 + half**3 / 6)


def _chi8_tail_moment(x: float) -> float:
    """Integral of x**8 exp(-x**2 / 2) / 48: 2**3.5 / 48 times the upper incomplete gamma function of 4.5."""
    half = x * x / 2
    gamma = math.sqrt(math.pi) * math.erfc(math.sqrt(half))
    for order in (0.5, 1.5, 2.5, 3.5):
        gamma = order * gamma + half**order * math.exp(-half)
    return 2**3.5 / 48 * gamma


#: length of a vector of eight independent normal numbers
CHI8 = Density(density=_chi8_density, tail=_chi8_tail, tail_moment=_chi8_tail_moment, second_moment=8.0, reach=14.0)


def solve(density: Density, count: int) -> Floats:
    """Return the ``count`` best levels on [0, inf), ascending, by Newton's method on the condition that each is its cell's mean."""
    levels = _first_guess(density, count)
    for _ in range(_NEWTON_STEPS):
        residual, jacobian = _residual(density, levels)
        step = np.linalg.solve(jacobian, residual)
        size = 1.0
        while not (np.diff(levels - size * step, prepend=0.0) > 0).all():  # too far: levels must stay in order
            size /= 2
        levels = levels - size * step
        if np.abs(step).max() < 1e-14 * levels[-1]:
            break
    return levels


def distortion(density: Density, levels: Floats) -> float:
    """Return the mean squared error of rounding to the nearest of ``levels``, each the mean of its cell."""
    probability, _, _ = _cells(density, levels)
    return density.second_moment - float((probability * levels**2).sum())


def _cells(density: Density, levels: Floats) -> tuple[Floats, Floats, Floats]:
    """Probability and mean of every cell, and the lower ends of the cells."""
    ends = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2])
    tails = np.array([density.tail(x) for x in ends] + [0.0])
    moments = np.array([density.tail_moment(x) for x in ends] + [0.0])
    probability = tails[:-1] - tails[1:]
    return probability, (moments[:-1] - moments[1:]) / probability, ends


def _residual(density: Density, levels: Floats) -> tuple[Floats, Floats]:
    """Return how far each level is from its cell's mean, and the derivative of that by every level."""
    probability, mean, ends = _cells(density, levels)
    heights = np.array([density.density(x) for x in ends])
    by_lower = heights * (mean - ends) / probability
    by_upper = heights[1:] * (ends[1:] - mean[:-1]) / probability[:-1]
    jacobian = np.eye(len(levels))
    inner = np.arange(1, len(levels))
    jacobian[inner, inner] -= by_lower[1:] / 2
    jacobian[inner, inner - 1] -= by_lower[1:] / 2
    jacobian[inner - 1, inner - 1] -= by_upper / 2
    jacobian[inner - 1, inner] -= by_upper / 2
    return levels - mean, jacobian


def _first_guess(density: Density, count: int) -> Floats:
    """Spread levels as the cube root of the density, which is best for many of them (Panter and Dite, Proc. IRE 39(1), 1951)."""
    grid = np.linspace(0, density.reach, _GRID)
    mass = np.cumsum(np.cbrt([density.density(x) for x in grid]))
    guess: Floats = np.interp((np.arange(count) + 0.5) / count, mass / mass[-1], grid)
    return guess


@cache
def gaussian_levels(bits: int) -> tuple[float, ...]:
    """Return the 2**bits best levels for N(0, 1), ascending and symmetric."""
    upper = solve(HALF_NORMAL, 2 ** (bits - 1))
    return tuple(float(level) for level in np.concatenate([-upper[::-1], upper]))


def gaussian_distortion(bits: int) -> float:
    """Return the mean squared error of ``gaussian_levels(bits)`` on N(0, 1)."""
    return distortion(HALF_NORMAL, np.array(gaussian_levels(bits)[2 ** (bits - 1) :]))


@cache
def chi8_levels(bits: int) -> tuple[float, ...]:
    """Return the 2**bits best levels for the length of eight independent N(0, 1), ascending."""
    return tuple(float(level) for level in solve(CHI8, 2**bits))
