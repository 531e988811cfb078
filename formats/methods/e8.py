"""Directions of the lattice E8, the spherical codes chosen from them, and the nearest direction to a vector.

E8 is all vectors of eight whole numbers, or of eight halves of odd numbers, whose sum is even. Its shells hold 240, 2160, 6720,
17520 and 30240 vectors of squared length 2, 4, 6, 8 and 10 (240 times the sum of the cubed divisors of half the squared length).
"""

from functools import cache
from itertools import product
from math import gcd

import numpy as np
from numpy.typing import NDArray

from formats.compiled import compiled
from formats.threads import in_shares

#: directions come from vectors up to this squared length: 56640 of them
LONGEST = 10
#: directions compared side by side; work of one vector, in elements of an ordinary loop
_LANES, _WORK = 16, 1 << 10


@cache
def directions() -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the different directions as doubled vectors, int32 of shape (N, 8), and their squared lengths, shortest first.

    A direction stands once, by its shortest vector. Within a length vectors are in lexical order.
    """
    found = [*_of_parity(0), *_of_parity(1)]
    primitive = [v for v in found if _is_shortest(v)]
    primitive.sort(key=lambda v: (sum(x * x for x in v), v))
    doubled = np.array(primitive, np.int32)
    return doubled, (doubled.astype(np.int64) ** 2).sum(axis=1)


def _of_parity(parity: int) -> list[tuple[int, ...]]:
    """Return doubled vectors of the lattice whose entries are all even, or all odd."""
    longest = 4 * LONGEST
    entries = [x for x in range(-7, 8) if x % 2 == parity]
    partial: list[tuple[tuple[int, ...], int]] = [((), 0)]
    least = 1 if parity else 0
    for place in range(8):
        rest = least * (7 - place)
        partial = [
            ((*head, x), length + x * x) for (head, length), x in product(partial, entries) if length + x * x + rest <= longest
        ]
    return [v for v, length in partial if length > 0 and sum(v) % 4 == 0]


def _is_shortest(doubled: tuple[int, ...]) -> bool:
    """Whether no shorter vector of the lattice points the same way."""
    divisor = gcd(*doubled)
    for factor in range(2, divisor + 1):
        if divisor % factor == 0:
            shorter = [x // factor for x in doubled]
            if len({x % 2 for x in shorter}) == 1 and sum(shorter) % 4 == 0:
                return False
    return True


@compiled
def _spread(vectors: NDArray[np.int32], lengths: NDArray[np.int64], count: int, chosen: NDArray[np.int64]) -> None:
    """Choose ``count`` vectors in turn, each with the smallest largest cosine to those before it; the first at a tie.

    ``vectors`` are (8, N). Cosines are compared as sign times dot**2 / (length * length), quotients of whole numbers.
    """
    size = vectors.shape[1]
    nearest = np.full(size, -2.0)
    current = 0
    for step in range(count):
        chosen[step] = current
        own = lengths[current]
        for i in range(size):
            dot = np.int64(0)
            for k in range(8):
                dot += vectors[k, i] * vectors[k, current]
            cosine = float(dot * abs(dot)) / float(lengths[i] * own)
            if cosine > nearest[i]:
                nearest[i] = cosine
        current = 0
        for i in range(size):
            if nearest[i] < nearest[current]:
                current = i


@cache
def spherical_code(bits: int) -> NDArray[np.float32]:
    """Return 2**bits unit vectors, float32 of shape (2**bits, 8), chosen greedily for the largest angles between them."""
    vectors, lengths = directions()
    chosen = np.empty(2**bits, np.int64)
    _spread(np.ascontiguousarray(vectors.T), lengths, 2**bits, chosen)
    unit = vectors[chosen] / np.sqrt(lengths[chosen])[:, np.newaxis]
    made = unit.astype(np.float32)
    made.setflags(write=False)
    return made


@compiled
def _project(
    vectors: NDArray[np.float32],
    directions: NDArray[np.float32],
    start: int,
    stop: int,
    chosen: NDArray[np.uint16],
    dots: NDArray[np.float32],
) -> None:
    """Find the direction of largest inner product with each vector, the first at a tie; ``directions`` are (8, K)."""
    count = directions.shape[1]
    lanes = min(_LANES, count)
    best, place = np.empty(lanes, np.float32), np.empty(lanes, np.int32)
    for i in range(start, stop):
        v = vectors[i]
        best[:] = np.float32(-np.inf)
        for block in range(0, count, lanes):
            for lane in range(lanes):
                j = block + lane
                dot = v[0] * directions[0, j] + v[1] * directions[1, j] + v[2] * directions[2, j] + v[3] * directions[3, j]
                dot += v[4] * directions[4, j] + v[5] * directions[5, j] + v[6] * directions[6, j] + v[7] * directions[7, j]
                if dot > best[lane]:
                    best[lane], place[lane] = dot, block
        found = 0
        for lane in range(1, lanes):
            ahead = best[lane] > best[found]
            if ahead or (best[lane] == best[found] and place[lane] + lane < place[found] + found):
                found = lane
        chosen[i], dots[i] = place[found] + found, best[found]


def nearest_directions(
    vectors: NDArray[np.float32], directions: NDArray[np.float32]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return, for each of (N, 8) vectors, the index of the direction of (K, 8) with the largest inner product, and that product."""
    chosen, dots = np.zeros(len(vectors), np.uint16), np.zeros(len(vectors), np.float32)
    across = np.ascontiguousarray(directions.T)

    def work(start: int, stop: int) -> None:
        _project(vectors, across, start // _WORK, stop // _WORK, chosen, dots)

    in_shares(work, len(vectors) * _WORK, align=_WORK)
    return chosen, dots
