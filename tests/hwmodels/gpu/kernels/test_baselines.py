"""The vendor's products, which torch runs on a processor too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hwmodels.gpu.kernels.baselines import KERNELS
from hwmodels.gpu.kernels.kernel import Kernel, Product

NAMES = {"torch.matmul": "bfloat16", "torch._scaled_mm": "float8_e4m3fn", "torch._int_mm": "int8"}


def product(kernel: Kernel, rows: int = 32) -> Product:
    name = NAMES[kernel.name]
    return Product(rows=rows, columns=48, depth=64, weight=name, activation=name)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_results_lie_within_their_bounds(kernel: Kernel) -> None:
    operands = kernel.operands(product(kernel), 3, torch.device("cpu"))
    expected, bound = kernel.reference(operands)
    found = kernel.run(operands).double().numpy()
    assert found.shape == expected.shape == (32, 48)
    assert (np.abs(found - expected) <= bound).all()
    assert np.abs(expected).max() > 10 * bound.max()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_seeds_give_other_operands(kernel: Kernel) -> None:
    one, same, other = (kernel.operands(product(kernel), seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(one.x.float(), same.x.float())
    assert not torch.equal(one.x.float(), other.x.float())


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_other_operands_are_refused(kernel: Kernel) -> None:
    good = product(kernel)
    assert kernel.takes(good) is None
    assert (
        kernel.takes(replace(good, weight="int4"))
        == f"operands must both be {NAMES[kernel.name]} without groups, not int4 and {good.activation}"
    )
    assert kernel.takes(replace(good, depth=63)) is not None
    assert kernel.takes(replace(good, group=32)) is not None


def test_bytes_count_each_operand_and_the_result_once() -> None:
    assert [kernel.bytes_moved(product(kernel)) for kernel in KERNELS] == [
        2 * (32 * 64 + 48 * 64 + 32 * 48),
        32 * 64 + 48 * 64 + 2 * 32 * 48,
        32 * 64 + 48 * 64 + 4 * 32 * 48,
    ]
