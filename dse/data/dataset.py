"""What a labelled image data set is: four fixed splits, each with one purpose."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError

SPLIT_NAMES = ("train", "calibration", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images and their labels.

    ``images`` is float32 of shape (N, channels, height, width) or whatever one sample of the model's input looks like;
    ``labels`` is int64 of shape (N,).
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over bytes and shapes."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Four splits that share no sample.

    ``train`` fits float weights; ``calibration`` sets activation ranges; ``validation`` is what a search measures;
    ``test`` is left alone until one chosen model is reported on.
    """

    name: str
    classes: int
    train: Split
    calibration: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        """Refuse splits that no network could be measured on."""
        for name in SPLIT_NAMES:
            _check_split(self.name, name, self.split(name), self.classes)
            if self.split(name).images.shape[1:] != self.train.images.shape[1:]:
                shapes = f"{self.train.images.shape[1:]} and {self.split(name).images.shape[1:]}"
                raise InvalidValueError(f"samples of all splits must have one shape, not {shapes} (data set {self.name!r}, {name})")

    def split(self, name: str) -> Split:
        """Return the split called ``name``, one of ``SPLIT_NAMES``."""
        split: Split = getattr(self, name)
        return split

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch axis."""
        return tuple(self.validation.images.shape[1:])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every split's bytes and shapes: the identity of the data in caches and ledgers."""
        digest = hashlib.sha256(f"{self.name} {self.classes}".encode())
        for name in SPLIT_NAMES:
            split = self.split(name)
            for array in (split.images, split.labels):
                digest.update(f"{name} {array.shape} {array.dtype}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _check_split(data: str, name: str, split: Split, classes: int) -> None:
    where = f"data set {data!r}, split {name!r}"
    if not isinstance(split, Split):
        raise InvalidValueError(f"a split must be a dse.data.Split, not {type(split).__name__} ({where})")
    if split.images.dtype != np.float32 or split.labels.dtype != np.int64:
        dtypes = f"{split.images.dtype} and {split.labels.dtype}"
        raise InvalidValueError(f"images and labels must be float32 and int64, not {dtypes} ({where})")
    if split.labels.ndim != 1:
        raise InvalidValueError(f"labels must have the shape (N,), not {split.labels.shape} ({where})")
    if len(split.images) != len(split.labels) or len(split.images) == 0:
        counts = f"{len(split.images)} and {len(split.labels)}"
        raise InvalidValueError(f"images and labels must be equally many and at least one, not {counts} ({where})")
    if not np.isfinite(split.images).all():
        count = int((~np.isfinite(split.images)).sum())
        raise InvalidValueError(f"images must be finite, not NaN or Inf in {count} values ({where})")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        raise InvalidValueError(f"labels must be 0 to {classes - 1}, not {low} to {high} ({where})")


def from_arrays(
    *,
    name: str,
    classes: int,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    counts: tuple[int, int, int, int],
    seed: int = 0,
) -> Dataset:
    """Cut one array of samples into the four splits by a seeded permutation.

    ``counts`` are the sizes of train, calibration, validation and test, in this order; samples beyond their sum are unused.
    """
    if len(counts) != len(SPLIT_NAMES) or not all(isinstance(count, int) for count in counts):
        raise InvalidValueError(f"counts must be four whole numbers, for {', '.join(SPLIT_NAMES)}, not {counts}")
    if len(images) != len(labels):
        raise InvalidValueError(f"images and labels must be equally many, not {len(images)} and {len(labels)}")
    if min(counts) < 1 or sum(counts) > len(images):
        raise InvalidValueError(f"counts must be positive and sum to at most {len(images)} samples, not {counts}")
    order = np.random.default_rng(seed).permutation(len(images))
    splits = {}
    start = 0
    for split_name, count in zip(SPLIT_NAMES, counts, strict=True):
        chosen = order[start : start + count]
        splits[split_name] = Split(images=images[chosen], labels=labels[chosen])
        start += count
    return Dataset(name=name, classes=classes, **splits)
