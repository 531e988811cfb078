"""Orthogonal matrices that spread every channel over all others."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg

Floats = NDArray[np.float64]


def flat_matrix(size: int) -> Floats:
    """Return an orthogonal matrix of shape (size, size) whose entries are as nearly equal in magnitude as is known here.

    The first column is constant. Sylvester's and Paley's first construction and their Kronecker products with it give a Hadamard
    matrix over ``sqrt(size)``; an odd factor that neither reaches is a discrete cosine transform (orthonormal, type III), whose
    entries are at most ``sqrt(2 / size)``.
    """
    if size & (size - 1) == 0:
        made = np.asarray(linalg.hadamard(size)) / np.sqrt(size)
    elif size % 4 == 0 and _is_prime(size - 1):
        made = _paley(size - 1) / np.sqrt(size)
    elif size % 2 == 0:
        made = np.kron(flat_matrix(2), flat_matrix(size // 2))
    else:
        made = fft.dct(np.eye(size), axis=0, norm="ortho").T
    return np.ascontiguousarray(made, np.float64)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _paley(prime: int) -> Floats:
    """Return Paley's Hadamard matrix of order prime + 1, for a prime that is 3 modulo 4, with a first column of ones."""
    residues = {number * number % prime for number in range(1, prime)}
    character = np.array([0] + [1 if number in residues else -1 for number in range(1, prime)])
    jacobsthal = character[(np.arange(prime)[:, np.newaxis] - np.arange(prime)) % prime]
    skew = np.block([[np.zeros((1, 1)), np.ones((1, prime))], [-np.ones((prime, 1)), jacobsthal]])
    matrix: Floats = skew + np.eye(prime + 1)
    return matrix * matrix[:, :1]  # a row with its sign changed is a row of another Hadamard matrix


def fixing_ones(matrix: Floats) -> Floats:
    """Return an orthogonal matrix that maps the vector of ones to itself: the given one, and a reflection that brings it back."""
    ones = np.ones(len(matrix))
    away = matrix @ ones - ones
    length = away @ away
    if length < 1e-12 * len(matrix):
        return matrix
    reflected: Floats = matrix - np.outer(away, away @ matrix) * (2 / length)
    return reflected
