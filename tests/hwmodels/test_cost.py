import pytest

from formats import Quantizer
from hwmodels.cost import LayerPlan, evaluate
from hwmodels.finn_formula import finn_formula
from hwmodels.storage import BIT_OPERATIONS, WEIGHT_MEMORY
from hwmodels.workload import LayerWorkload

MODELS = (WEIGHT_MEMORY, BIT_OPERATIONS, finn_formula())


def plan(name: str, weight: str, activation: str, weights: int = 60) -> LayerPlan:
    workload = LayerWorkload(
        name=name, kind="linear", macs=600, weights=weights, output_channels=4, activations_in=15, activations_out=4, dot_length=15
    )
    return LayerPlan(workload=workload, weight=Quantizer.parse(weight), activation=Quantizer.parse(activation))


@pytest.mark.parametrize(
    ("weight", "weight_bits", "scales"),
    [("int4:tensor", 240, 1), ("e2m3:channel", 360, 4), ("ternary:group4", 120, 16), ("int4:group15", 240, 4)],
)
def test_memory_is_codes_and_scales(weight: str, weight_bits: int, scales: int) -> None:
    figures = WEIGHT_MEMORY.figures(plan("a", weight, "int8"))
    assert figures == {"weight_bits": weight_bits, "scale_bits": 32 * scales}


def test_a_product_stores_no_weights() -> None:
    assert WEIGHT_MEMORY.figures(plan("a", "int4", "int8", weights=0)) == {"weight_bits": 0, "scale_bits": 0}


def test_bit_operations_are_macs_times_both_widths() -> None:
    assert BIT_OPERATIONS.figures(plan("a", "e2m1", "uint8")) == {"bops": 600 * 4 * 8}


def test_totals_are_sums_of_what_adds_up() -> None:
    cost = evaluate(MODELS, [plan("a", "int4", "int8"), plan("b", "int8", "e2m1")])
    assert list(cost.layers) == ["a", "b"]
    assert "lut_per_mac" in cost.layers["a"]
    assert "lut_per_mac" not in cost.total
    for name, total in cost.total.items():
        assert total == cost.layers["a"][name] + cost.layers["b"][name]


def test_every_metric_has_a_unit_and_says_what_it_counts() -> None:
    for metric in evaluate(MODELS, []).metrics:
        assert metric.unit
        assert metric.summary
