"""Labels that a network's equations make one: its channels, each free to carry a factor of its own."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from dse.ptq.channel_labels import PINNED, Labelling

Index = NDArray[np.int64]
#: what stands in the place of a class where an element carries no factor, and of a channel where it is of none
OUTSIDE = -1


class Classes:
    """Labels that the equations make one, numbered by their first label; each label is its class's factor or the inverse."""

    def __init__(self, labelling: Labelling) -> None:
        """Solve the equations."""
        count = labelling.count
        none = np.empty((2, 0), np.int64)
        (a, b), (c, d) = (np.concatenate([none, *pairs], 1) for pairs in (labelling.same, labelling.inverse))
        # every label stands for its factor and, ``count`` further on, for the inverse
        left = np.concatenate([a, a + count, c, c + count, [PINNED]])
        right = np.concatenate([b, b + count, d + count, d, [PINNED + count]])
        graph = sparse.coo_array((np.ones(len(left), np.int8), (left, right)), shape=(2 * count, 2 * count))
        component = csgraph.connected_components(graph, directed=False)[1]
        plain, inverted = component[:count], component[count:]
        _, first, number = np.unique(np.minimum(plain, inverted), return_index=True, return_inverse=True)
        self.number: Index = first[number]
        self.sign: Index = np.where(plain == plain[self.number], 1, -1)
        self.pinned: NDArray[np.bool_] = plain == inverted  # what is its own inverse is one
        if labelling.orthogonal:
            self._pin_what_is_no_vector(labelling)

    def of(self, variable: Tensor) -> Index:
        """Return the classes of labels, ``OUTSIDE`` for pinned ones."""
        numbers = self.number[variable.numpy()]
        found: Index = np.where(self.pinned[numbers], OUTSIDE, numbers)
        return found

    def signed(self, variable: Tensor, sign: int) -> Index:
        """Return twice the classes of labels, plus one where ``sign`` times their own sign is 1; ``OUTSIDE`` for pinned ones."""
        numbers = self.of(variable)
        found: Index = np.where(numbers == OUTSIDE, OUTSIDE, 2 * numbers + (sign * self.sign[variable.numpy()] > 0))
        return found

    def _pin_what_is_no_vector(self, labelling: Labelling) -> None:
        """Pin channels that lie in vectors with those of other places, or more than once in a vector."""
        for labels in labelling.moved:
            numbers, fibres = self.of(labels.variable), labels.fibre.numpy()
            if any(varies(numbers, axis) and varies(fibres, axis) for axis in range(numbers.ndim)):
                self._pin(numbers.ravel())
        for rows in labelling.rows:
            for row in distinct(self.signed(rows.variable, 1)):
                values, counts = np.unique(row[row != OUTSIDE], return_counts=True)
                self._pin(values[counts > 1] // 2)

    def _pin(self, numbers: Index) -> None:
        self.pinned[numbers[numbers != OUTSIDE]] = True


def varies(values: Index, axis: int) -> bool:
    """Whether values differ along an axis."""
    return bool((values != values.take([0], axis)).any())


def distinct(rows: Index) -> Index:
    """Return the different rows of a matrix."""
    return rows[:1] if not varies(rows, 0) else np.unique(rows, axis=0)
