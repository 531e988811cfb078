"""Orthogonal matrices with entries of one magnitude, or nearly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.ptq.hadamard import fixing_ones, flat_matrix


@given(st.integers(1, 96))
def test_matrices_are_orthogonal_with_a_constant_first_column(size: int) -> None:
    matrix = flat_matrix(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(matrix[:, 0], 1 / np.sqrt(size))
    assert np.abs(matrix).max() <= np.sqrt(2 / size) + 1e-12


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 768])
def test_hadamard_matrices_have_entries_of_one_magnitude(size: int) -> None:
    np.testing.assert_allclose(np.abs(flat_matrix(size)), 1 / np.sqrt(size))


@given(st.integers(2, 64), st.integers(0, 2**32 - 1))
def test_the_vector_of_ones_can_be_kept(size: int, seed: int) -> None:
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size)
    matrix = fixing_ones(flat_matrix(size) * signs)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-10)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-10)


def test_what_keeps_it_already_is_left_alone() -> None:
    np.testing.assert_array_equal(fixing_ones(np.eye(5)), np.eye(5))
