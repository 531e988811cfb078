"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes (Xiao et al., arXiv 1708.07747).

Looked for in three places, in this order: a folder named by the user, the files of Debian's package
``dataset-fashion-mnist``, and a download kept in the cache folder. Whatever the place, the contents are checked against
the SHA-256 of the decompressed files.
"""

import contextlib
import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dse.data.dataset import Dataset, Split
from dse.data.idx import read_idx
from formats.errors import BitatlasError, InvalidValueError
from hwmodels.files import cache_directory, replaced

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOWNLOAD_FROM = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
DOWNLOAD_TIMEOUT_SECONDS = 10

# SHA-256 of the pixels or labels that follow each file's IDX header
SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}

TRAIN, CALIBRATION = 55_000, 1_000  # the other 4,000 are for validation


def load(data_dir: Path | None = None) -> Dataset:
    """Return Fashion-MNIST with pixels scaled to [0, 1], shape (N, 1, 28, 28).

    The 60,000 training images, permuted with seed 0, give 55,000 to train, 1,000 to calibration and 4,000 to validation;
    the 10,000 images of the published test set are the test split.
    """
    folder = find(data_dir)
    arrays = {name: _read_checked(folder, name) for name in SHA256}
    images = _scaled(arrays["train-images-idx3-ubyte"])
    labels = arrays["train-labels-idx1-ubyte"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(order, [TRAIN, TRAIN + CALIBRATION])
    train, calibration, validation = (Split(images=images[part], labels=labels[part]) for part in parts)
    test_labels = arrays["t10k-labels-idx1-ubyte"].astype(np.int64)
    test = Split(images=_scaled(arrays["t10k-images-idx3-ubyte"]), labels=test_labels)
    return Dataset(name="fashion-mnist", classes=10, train=train, calibration=calibration, validation=validation, test=test)


def find(data_dir: Path | None = None) -> Path:
    """Return a folder that holds the four files, downloading them when no other place has them."""
    if data_dir is not None:
        missing = [name for name in SHA256 if _file(data_dir, name) is None]
        if missing:
            raise InvalidValueError(
                f"--data-dir must hold the files {', '.join(SHA256)} (plain or .gz), not lack {missing[0]}: {data_dir}"
            )
        return data_dir
    downloaded = cache_directory() / "fashion-mnist"
    for folder in (DEBIAN_FOLDER, downloaded):
        if all(_file(folder, name) is not None for name in SHA256):
            return folder
    try:
        _download(downloaded)
    except (urllib.error.URLError, OSError) as error:
        raise BitatlasError(
            "data set 'fashion-mnist' must be in one of three places, not in none: "
            "(1) --data-dir DIR with the four IDX files; (2) Debian's package dataset-fashion-mnist "
            f"(apt-get install dataset-fashion-mnist); (3) a download, which failed now ({error})"
        ) from None
    return downloaded


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _download(folder: Path) -> None:
    for name in SHA256:
        with contextlib.closing(urllib.request.urlopen(f"{DOWNLOAD_FROM}/{name}.gz", timeout=DOWNLOAD_TIMEOUT_SECONDS)) as response:
            content = response.read()
        with replaced(folder / f"{name}.gz") as temporary:
            temporary.write_bytes(content)
            _check(read_idx(temporary), name, temporary)


def _read_checked(folder: Path, name: str) -> NDArray[np.uint8]:
    path = _file(folder, name)
    assert path is not None  # find() saw it
    array = read_idx(path)
    _check(array, name, path)
    return array


def _check(array: NDArray[np.uint8], name: str, path: Path) -> None:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    if digest != SHA256[name]:
        raise InvalidValueError(f"contents of {name} must have SHA-256 {SHA256[name][:16]}…, not {digest[:16]}…: {path}")


def _scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (pixels[:, np.newaxis] / np.float32(255.0)).astype(np.float32)
