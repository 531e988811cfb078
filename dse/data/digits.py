"""The 1,797 handwritten digits of 8 x 8 pixels that the scikit-learn wheel carries."""

import numpy as np

from dse.data.dataset import Dataset, from_arrays

# train, calibration, validation, test: together all 1,797 images
COUNTS = (1000, 100, 300, 397)


def load() -> Dataset:
    """Return the digits with pixels scaled to [0, 1], shape (N, 1, 8, 8), split by a permutation with seed 0."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images[:, np.newaxis] / 16.0).astype(np.float32)
    return from_arrays(name="digits", classes=10, images=images, labels=bunch.target.astype(np.int64), counts=COUNTS)
