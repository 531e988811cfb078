"""Quotients by a shared reciprocal are those of IEEE 754's division."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from hwmodels.gpu.kernels.dividing import REACH, divisor, quotient

SIZE = 1 << 14


@triton.jit
def divide(x, scale, out, SIZE: tl.constexpr, BOUNDED: tl.constexpr):
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    power, near_one, reciprocal = divisor(tl.load(scale + place))
    tl.store(out + place, quotient(tl.load(x + place), power, near_one, reciprocal, BOUNDED, True))


def quotients(x: NDArray[np.float32], scale: NDArray[np.float32], *, bounded: bool) -> NDArray[np.float32]:
    count = -(-x.size // SIZE)
    out = torch.empty(count * SIZE)
    filled = [torch.from_numpy(np.pad(each, (0, count * SIZE - each.size), constant_values=1)) for each in (x, scale)]
    with np.errstate(all="ignore"):
        divide[(count,)](*filled, out, SIZE, bounded)
    return out.numpy()[: x.size]


def same(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return bool((found.view(np.uint32) == expected.view(np.uint32)).all())


def significands(generator: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Numbers from 1 to 2, any of them, half of them near the ends."""
    bits = generator.integers(0, 2**23, count)
    bits[::4] >>= 18
    bits[2::4] |= 0x7FFFE0
    return (bits.astype(np.int32) | (127 << 23)).view(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_every_significand_over_every_other(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, scale = significands(generator, 1 << 19), significands(generator, 1 << 19)
    assert same(quotients(x, scale, bounded=True), x / scale)


@pytest.mark.parametrize("seed", range(4))
def test_quotients_beside_the_middle_of_two_numbers(seed: int) -> None:
    generator = np.random.default_rng(10 + seed)
    scale, wanted = significands(generator, 1 << 17), significands(generator, 1 << 17)
    middle = (scale.astype(np.float64) * (wanted + 2.0**-24)).astype(np.float32)
    for x in (np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(4))):
        assert same(quotients(x, scale, bounded=True), x / scale)


@pytest.mark.parametrize("bounded", [False, True])
def test_scales_of_every_size_subnormal_ones_too(bounded: bool) -> None:
    generator = np.random.default_rng(20)
    fields = np.repeat(np.arange(255), 64)
    scale = (fields << 23 | generator.integers(1, 2**23, fields.size)).astype(np.int32).view(np.float32)
    with np.errstate(all="ignore"):
        x = (generator.standard_normal(fields.size) * np.exp2(generator.integers(-30, 30, fields.size)) * scale).astype(np.float32)
        expected = x / scale
    certain = np.isfinite(x) & (np.abs(expected) > 1 / REACH) & (np.abs(x) > np.finfo(np.float32).tiny)
    assert certain.sum() > 0.8 * fields.size
    assert same(quotients(x[certain], scale[certain], bounded=bounded), expected[certain])


def test_what_is_out_of_reach_stays_there_and_keeps_its_sign() -> None:
    large = np.array([np.inf, -np.inf, 3e38, -3e38, 1e30], np.float32)
    found = quotients(large, np.full(5, 1e-30, np.float32), bounded=False)
    assert (np.abs(found) >= REACH / 2).all()
    assert (np.sign(found) == np.sign(large)).all()
    small = np.array([0.0, -0.0, 1e-45, -1e-45], np.float32)
    found = quotients(small, np.full(4, 1e30, np.float32), bounded=False)
    assert (np.abs(found) <= 1 / REACH).all()
    assert (np.signbit(found) == np.signbit(small)).all()
    assert np.isnan(quotients(np.array([np.nan], np.float32), np.ones(1, np.float32), bounded=False)).all()
