"""Labelled images with fixed splits, by name."""

from collections.abc import Callable
from pathlib import Path

from dse.data.dataset import SPLIT_NAMES, Dataset, Split, from_arrays
from formats.names import unknown_name

__all__ = ["SPLIT_NAMES", "Dataset", "Split", "from_arrays", "load", "names"]


def _digits(data_dir: Path | None) -> Dataset:
    from dse.data import digits

    del data_dir  # the images come with scikit-learn
    return digits.load()


def _fashion_mnist(data_dir: Path | None) -> Dataset:
    from dse.data import fashion_mnist

    return fashion_mnist.load(data_dir)


_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {"digits": _digits, "fashion-mnist": _fashion_mnist}


def names() -> tuple[str, ...]:
    """Return the names that ``load`` knows."""
    return tuple(_LOADERS)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Load the data set called ``name``; ``data_dir`` is where the user keeps its files, if anywhere."""
    if name not in _LOADERS:
        raise unknown_name("data set", name, _LOADERS)
    return _LOADERS[name](data_dir)
