"""Prepared weights come back from disk as they were, whatever their quantizer, and no file can run code."""

import json
from pathlib import Path

import numpy as np
import pytest

from dse.assignment import parse_quantizer
from dse.ptq import archive
from dse.ptq.step import LowRank, PreparedWeight
from formats import BitatlasError

WEIGHT = np.random.default_rng(0).normal(size=(16, 9, 4)).astype(np.float32)
QUANTIZERS = (
    "int4",
    "e2m1:group7:mse",
    "nf4:group64:absmax:double",
    "post4:channel:absmax:power_of_two",
    "int4:block3x3:mse:e8m0",
    "mxfp4",
    "nvfp4",
    "tritplanes",
    "pcdvq_d14_m2",
    "lloydfit3",
    "twinlog4",
)


@pytest.mark.parametrize("text", QUANTIZERS)
def test_what_was_written_is_read_again(text: str, tmp_path: Path) -> None:
    quantizer = parse_quantizer(text, "weight")
    factor = parse_quantizer("int8:channel:absmax", "weight").encode(WEIGHT[:, :2, 0])
    low_rank = LowRank(left=factor, right=parse_quantizer("float16:tensor:absmax", "weight").encode(WEIGHT[:2].reshape(2, 36)))
    written = PreparedWeight(encoded=quantizer.encode(WEIGHT), low_rank=low_rank, bias_shift=WEIGHT[:, 0, 0])
    archive.write(tmp_path / "a" / "weight.npz", written)
    read = archive.read(tmp_path / "a" / "weight.npz")
    np.testing.assert_array_equal(read.values(), written.values())
    np.testing.assert_array_equal(read.bias_shift, written.bias_shift)
    assert read.encoded.storage_bits == written.encoded.storage_bits
    assert type(read.encoded) is type(written.encoded)


@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_a_file_that_was_cut_short_is_named(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "weight.npz"
    archive.write(path, PreparedWeight(encoded=parse_quantizer("int4", "weight").encode(WEIGHT)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BitatlasError, match=r"^prepared weight must be a whole file, not broken \(.*weight\.npz; remove it$"):
        archive.read(path)


@pytest.mark.parametrize("named", [["os", "system"], ["dse.ptq.archive", "write"], ["dse.ptq.step", "nothing"]])
def test_a_file_names_data_alone(named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "weight.npz"
    np.savez(path, tree=np.array(json.dumps({"name": "", "value": {"class": named, "fields": {}}})))
    with pytest.raises(BitatlasError, match="must be a whole file, not broken"):
        archive.read(path)


def test_what_is_no_data_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="value of a prepared weight must be data, not dict"):
        archive.write(tmp_path / "weight.npz", {"a": 1})
    assert not list(tmp_path.iterdir())
