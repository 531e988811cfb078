"""A layer's counts must fit its shape."""

import re
from dataclasses import replace

import pytest

from formats import InvalidValueError
from hwmodels.workload import Convolution, LayerWorkload

SHAPE = Convolution(
    input_channels=8,
    groups=1,
    kernel=(3, 3),
    stride=(2, 1),
    padding=((1, 1), (1, 1)),
    dilation=(1, 1),
    input_size=(9, 6),
    output_size=(5, 6),
)
LAYER = LayerWorkload(
    name="a",
    kind="convolution",
    macs=30 * 4 * 72,
    weights=4 * 72,
    output_channels=4,
    activations_in=8 * 54,
    activations_out=30 * 4,
    dot_length=72,
    convolution=SHAPE,
)


def test_a_convolution_is_a_product_of_its_positions_with_its_kernels() -> None:
    assert LAYER.vectors == 30
    assert LAYER.operand_elements == 4 * 72
    assert SHAPE.padded_size == (11, 8)
    assert SHAPE.padded
    assert not SHAPE.pointwise


def test_the_operand_of_a_product_counts_all_its_matrices() -> None:
    product = LayerWorkload(
        name="p",
        kind="product",
        macs=2 * 5 * 7 * 3,
        weights=0,
        output_channels=7,
        activations_in=2 * 5 * 3,
        activations_out=2 * 5 * 7,
        dot_length=3,
        matrices=2,
    )
    assert (product.vectors, product.operand_elements) == (10, 2 * 3 * 7)


def test_depthwise_is_a_group_for_each_of_several_channels() -> None:
    assert replace(SHAPE, groups=8).depthwise
    assert not replace(SHAPE, groups=4).depthwise
    assert not replace(SHAPE, input_channels=1).depthwise


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs": 1}, "MACs of a layer must be 8640 here, not 1 (layer 'a')"),
        ({"weights": 5}, "weights of a layer must be 0 or 288 here, not 5 (layer 'a')"),
        ({"activations_out": 121}, "outputs of a layer must be a multiple of 4 here, not 121 (layer 'a')"),
        (
            {"dot_length": 70, "macs": 120 * 70, "weights": 280},
            "products for an output of a layer must be those of its kernel here, not 70 (layer 'a')",
        ),
        (
            {"activations_out": 124, "macs": 124 * 72},
            "output positions of a layer must be 30 here, not 31 (layer 'a')",
        ),
    ],
)
def test_counts_that_contradict_each_other_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}$"):
        replace(LAYER, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, "groups must divide the 8 input channels, not be 3"),
        ({"output_size": (5, 5)}, "output size of a convolution must be 6 here, not 5"),
        ({"stride": (1,)}, "a convolution must have one to three axes, the same for all its sizes, not "),
    ],
)
def test_a_shape_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^{re.escape(message)}"):
        replace(SHAPE, **change)  # type: ignore[arg-type]
