"""Kernels by name, and what each says of the products that it is asked for."""

import numpy as np
import pytest
import torch

from formats.errors import InvalidValueError, UnknownNameError
from hwmodels.gpu.kernels.kernel import Product
from hwmodels.gpu.kernels.registry import get, kernels

GIVEN = {"rows": 3, "columns": 300, "depth": 100, "weight": "int4", "activation": "float16"}
WEIGHT_ONLY = ("weight_only_gemv", "weight_only_gemm", "weight_only_gemv_rounded", "weight_only_gemm_rounded")


def product(**changed: object) -> Product:
    return Product(**(GIVEN | changed))  # type: ignore[arg-type]


def test_every_kernel_is_there_under_its_name() -> None:
    assert set(WEIGHT_ONLY) <= set(kernels())
    assert all(get(name).name == name for name in kernels())


def test_an_unknown_kernel_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="kernel must be a known name, not 'weight_only_gem'; nearest: weight_only_gem"):
        get("weight_only_gem")


@pytest.mark.parametrize(
    ("name", "weight", "group"),
    [
        ("weight_only_gemv", "int4", 32),
        ("weight_only_gemm", "e2m1", 0),
        ("weight_only_gemm", "tritplanes", 64),
        ("weight_only_gemv_rounded", "nf4", 64),
        ("weight_only_gemm_rounded", "post4", 0),
    ],
)
def test_random_operands_give_what_is_expected_of_them(name: str, weight: str, group: int) -> None:
    kernel, asked = get(name), product(weight=weight, group=group)
    kernel.require(asked)
    operands = kernel.operands(asked, 5, torch.device("cpu"))
    expected, bound = kernel.reference(operands)
    found = kernel.run(operands)
    assert found.shape == expected.shape == bound.shape == (3, 300)
    assert (np.abs(found.double().numpy() - expected) <= bound).all()
    assert (bound < 0.01 * np.abs(expected).max()).all()
    assert len(np.unique(found.numpy()[0])) > 10  # rows of weights recur only beyond those that were drawn


def test_operands_follow_the_seed() -> None:
    kernel = get("weight_only_gemm")
    first, same, other = (kernel.operands(product(), seed, torch.device("cpu")) for seed in (1, 1, 2))
    assert torch.equal(first.x, same.x)
    assert torch.equal(first.weight.weight.words, same.weight.weight.words)
    assert not torch.equal(first.x, other.x)
    assert not torch.equal(first.weight.weight.words, other.weight.weight.words)


@pytest.mark.parametrize(
    ("changed", "bytes_moved"),
    [
        ({}, 300 * 100 / 2 + 300 * 4 + 3 * (100 + 300) * 2),
        ({"group": 32}, 300 * 100 / 2 + 300 * 4 * 4 + 3 * (100 + 300) * 2),
        ({"weight": "tritplanes"}, 300 * 100 / 2 + 300 * 8 + 3 * (100 + 300) * 2),
    ],
)
def test_bytes_are_those_of_codes_scales_activations_and_results(changed: dict[str, object], bytes_moved: float) -> None:
    kernel = get("weight_only_gemm")
    assert kernel.bytes_moved(product(**changed)) == bytes_moved
    assert kernel.operations(product(**changed)) == 2 * 3 * 300 * 100


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("weight_only_gemv", {"rows": 17}, "rows must be at most 16, not 17"),
        ("weight_only_gemm", {"columns": 0}, "rows, columns and depth of a product must be at least 1, not 3, 0, 100"),
        ("weight_only_gemm", {"activation": "int8"}, "activations beside weights in codes must be float16 or bfloat16, not int8"),
        ("weight_only_gemm", {"weight": "mxfp4"}, "weights of this kernel must be in a scalar format, or tritplanes, not mxfp4"),
        ("weight_only_gemm", {"weight": "int9"}, "bits of a format decoded in registers must be 2 to 8, not 9: int9"),
        (
            "weight_only_gemm",
            {"group": 24},
            "group of weights that share a scale must be a multiple of 16, or 0 for one scale, not 24; nearest: 32",
        ),
        ("weight_only_gemm_rounded", {}, "values to be rounded to float16 must be ones that it lacks, not those of int4"),
        (
            "weight_only_gemm_rounded",
            {"weight": "e6m1"},
            "values to be rounded to float16 must be at most 65504, not 6.44245e+09: e6m1",
        ),
    ],
)
def test_what_a_kernel_cannot_take_is_refused_in_one_line(name: str, changed: dict[str, object], reason: str) -> None:
    kernel, asked = get(name), product(**changed)
    assert kernel.takes(asked) == reason
    with pytest.raises(InvalidValueError) as error:
        kernel.require(asked)
    assert str(error.value) == f"{reason}: {name}"


def test_an_unknown_format_is_refused_with_the_nearest() -> None:
    assert "nearest: " in str(get("weight_only_gemm").takes(product(weight="imt4")))
