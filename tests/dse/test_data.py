import gzip
import re
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from dse import data
from dse.data import SPLIT_NAMES, Dataset, Split, fashion_mnist, from_arrays
from dse.data.idx import read_idx
from formats import BitatlasError, InvalidValueError


def as_rows(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.images]


def test_digits_have_fixed_splits_that_share_no_image_and_use_all(digits: Dataset) -> None:
    assert [len(digits.split(name)) for name in SPLIT_NAMES] == [1000, 100, 300, 397]
    rows = [row for name in SPLIT_NAMES for row in as_rows(digits.split(name))]
    assert len(set(rows)) == len(rows) == 1797
    assert digits.sample_shape == (1, 8, 8)
    assert digits.digest == data.load("digits").digest
    assert digits.digest.startswith("a6d56c7ba6904079")


def test_fashion_mnist_has_fixed_splits_and_keeps_the_published_test_set(fashion_mnist: Dataset) -> None:
    assert [len(fashion_mnist.split(name)) for name in SPLIT_NAMES] == [55_000, 1_000, 4_000, 10_000]
    assert fashion_mnist.sample_shape == (1, 28, 28)
    assert np.bincount(fashion_mnist.test.labels).tolist() == [1000] * 10
    total = sum(np.bincount(fashion_mnist.split(name).labels) for name in SPLIT_NAMES[:3])
    assert total.tolist() == [6000] * 10
    assert fashion_mnist.digest.startswith("ab6725072a097e44")


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(KeyError, match=r"^data set must be a known name, not 'digit'; nearest: digits$"):
        data.load("digit")


def test_missing_fashion_mnist_names_all_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(
        BitatlasError, match=r"--data-dir DIR .* dataset-fashion-mnist .* a download, which failed now .*no network"
    ):
        data.load("fashion-mnist")


def test_a_data_dir_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=r"^--data-dir must hold the files .*, not lack train-images-idx3-ubyte: "):
        data.load("fashion-mnist", tmp_path)


def test_a_download_is_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "t10k-labels-idx1-ubyte"
    wrong = tmp_path / "wrong.gz"
    wrong.write_bytes(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\1\2"))
    monkeypatch.setattr(fashion_mnist, "SHA256", {name: "0" * 64})
    monkeypatch.setattr(fashion_mnist, "DOWNLOAD_FROM", tmp_path.as_uri())
    monkeypatch.setenv("BITATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    wrong.rename(tmp_path / f"{name}.gz")
    with pytest.raises(InvalidValueError, match=rf"^contents of {name} must have SHA-256 0000000000000000…, not a12871fee210fb86…"):
        fashion_mnist.find()
    assert list((tmp_path / "cache").rglob("*ubyte*")) == []
    monkeypatch.setattr(fashion_mnist, "SHA256", {name: "a12871fee210fb8619291eaea194581cbd2531e4b23759d225f6806923f63222"})
    assert fashion_mnist.find() == tmp_path / "cache" / "fashion-mnist"
    assert read_idx(tmp_path / "cache" / "fashion-mnist" / f"{name}.gz").tolist() == [1, 2]


def idx_bytes(shape: tuple[int, ...], pixels: bytes) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + pixels


@pytest.mark.parametrize(
    ("content", "suffix", "message"),
    [
        (gzip.compress(idx_bytes((2,), b"ab"))[:-9], ".gz", "data file must be a whole gzip stream, not a corrupt one"),
        (b"no gzip at all", ".gz", "data file must be a whole gzip stream, not a corrupt one"),
        (b"", "", "data file must start with the IDX magic 00 00 08, not nothing"),
        (b"\x89PNG1234", "", "data file must start with the IDX magic 00 00 08, not 89 50 4e"),
        (idx_bytes((2, 3), b"")[:6], "", "data file must hold 12 bytes of IDX header, not 6"),
        (idx_bytes((2, 3), b"abcde"), "", "data file must hold 6 bytes for shape (2, 3), not 5"),
    ],
)
def test_a_corrupt_idx_file_is_named(tmp_path: Path, content: bytes, suffix: str, message: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match=re.escape(message)) as caught:
        read_idx(path)
    assert str(caught.value).endswith(str(path))


def test_an_idx_file_is_read_plain_or_compressed(tmp_path: Path) -> None:
    content = idx_bytes((2, 3), bytes(range(6)))
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    for path in (tmp_path / "a", tmp_path / "a.gz"):
        assert read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((10, 2))}, "images and labels must be float32 and int64, not float64 and int64"),
        ({"images": np.full((10, 2), np.nan, np.float32)}, "images must be finite, not NaN or Inf in "),
        ({"labels": np.full(10, 2)}, "labels must be 0 to 1, not 2 to 2"),
        ({"counts": (5, 3, 2, 1)}, "counts must be positive and sum to at most 10 samples, not (5, 3, 2, 1)"),
    ],
)
def test_unusable_arrays_are_refused(change: dict[str, object], message: str) -> None:
    arrays: dict[str, object] = {
        "images": np.zeros((10, 2), np.float32),
        "labels": np.zeros(10, np.int64),
        "counts": (4, 2, 2, 2),
    }
    with pytest.raises(InvalidValueError, match=re.escape(message)):
        from_arrays(name="own", classes=2, **(arrays | change))  # type: ignore[arg-type]
