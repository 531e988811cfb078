"""Fixtures for all tests: results go to a folder of the test run's own, never to the user's."""

import os
from collections.abc import Iterator
from pathlib import Path

# before anything imports torch, which imports Triton: kernels run in its interpreter where there is no GPU to run them
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

from dse import data
from dse.data import Dataset
from dse.data.fashion_mnist import DEBIAN_FOLDER
from dse.experiment import Experiment, prepare
from dse.models import loading


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITATLAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def fashion_mnist() -> Dataset:
    """Fashion-MNIST, from the folder in $FASHION_MNIST_DIR or from Debian's package; CI installs the package, users may not."""
    folder = Path(os.environ.get("FASHION_MNIST_DIR", DEBIAN_FOLDER))
    if not folder.exists() and not os.environ.get("CI"):
        pytest.skip("needs Fashion-MNIST: install dataset-fashion-mnist or set FASHION_MNIST_DIR")
    return data.load("fashion-mnist", folder)


@pytest.fixture(scope="session")
def resnet8(_own_cache: None) -> Experiment:
    return prepare(loading.load("resnet8", "digits"))


@pytest.fixture(scope="session")
def vit(_own_cache: None) -> Experiment:
    return prepare(loading.load("vit", "digits"))
