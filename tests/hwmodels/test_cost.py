import pytest

from formats import Quantizer
from hwmodels.cost import LayerPlan, NotPricedError, evaluate, evaluate_priced
from hwmodels.finn_formula import finn_formula
from hwmodels.storage import BIT_OPERATIONS, WEIGHT_MEMORY
from hwmodels.workload import LayerWorkload

MODELS = (WEIGHT_MEMORY, BIT_OPERATIONS, finn_formula())


def plan(name: str, weight: str, activation: str, weights: int = 60) -> LayerPlan:
    workload = LayerWorkload(
        name=name,
        kind="linear",
        macs=600,
        weights=weights,
        output_channels=4,
        activations_in=150,
        activations_out=40,
        dot_length=15,
    )
    return LayerPlan(workload=workload, weight=Quantizer.parse(weight), activation=Quantizer.parse(activation))


@pytest.mark.parametrize(
    ("weight", "weight_bits", "scales"),
    [("int4:tensor", 240, 1), ("e2m3:channel", 360, 4), ("ternary:group4", 120, 16), ("int4:group15", 240, 4)],
)
def test_memory_is_codes_and_scales(weight: str, weight_bits: int, scales: int) -> None:
    figures = WEIGHT_MEMORY.figures([plan("a", weight, "int8")]).layers[0]
    assert figures == {"weight_bits": weight_bits, "scale_bits": 32 * scales}


@pytest.mark.parametrize(
    ("weight", "weight_bits", "scale_bits"),
    [
        ("int4:channel:mse:e8m0", 240, 4 * 8),
        ("int4:group4:mse:float8_e4m3fn", 240, 16 * 8 + 32),
        ("int4:block2x4", 240, 8 * 32),
        ("nf4:group4:absmax:double", 240, 16 * 8 + 32 + 32),
        ("mxfp4", 240, 4 * 8),
        ("nvfp4", 240, 4 * 8 + 32),
        ("tritplanes:channel", 2 * 96, 4 * 64),
        ("pcdvq_d14_m2:channel", 4 * 2 * 16, 4 * 32),
        ("lloydfit3:tensor", 180, 32 + 8 * 32),
        ("twinlog4:channel", 240, 4 * 64),
    ],
)
def test_every_kind_of_quantizer_is_priced_by_what_it_stores(weight: str, weight_bits: int, scale_bits: int) -> None:
    figures = WEIGHT_MEMORY.figures([plan("a", weight, "int8")]).layers[0]
    assert figures == {"weight_bits": weight_bits, "scale_bits": scale_bits}


def test_a_model_that_knows_no_price_says_so_with_the_layer() -> None:
    with pytest.raises(NotPricedError) as caught:
        evaluate(MODELS, [plan("a", "int4", "int8"), plan("b", "tritplanes:group32", "int8")])
    said = "quantizer must write the codes of one format here, such as int4:channel:mse, not tritplanes:group32"
    assert str(caught.value) == f"{said} (cost model 'finn-formula', layer 'b')"


def test_models_that_know_no_price_can_be_left_out_with_their_reasons() -> None:
    cost, reasons = evaluate_priced(MODELS, [plan("a", "mxfp4", "int8")])
    assert set(cost.layers["a"]) == {"weight_bits", "scale_bits", "bops"}
    said = "format must be one whose codes stand alone here, not the block format mxfp4"
    assert reasons == (f"{said} (cost model 'finn-formula', layer 'a')",)
    cost, reasons = evaluate_priced(MODELS, [plan("a", "int4", "int8")])
    assert cost.layers == evaluate(MODELS, [plan("a", "int4", "int8")]).layers
    assert not reasons


def test_a_product_stores_no_weights() -> None:
    assert WEIGHT_MEMORY.figures([plan("a", "int4", "int8", weights=0)]).layers[0] == {"weight_bits": 0, "scale_bits": 0}


def test_bit_operations_are_macs_times_both_widths() -> None:
    assert BIT_OPERATIONS.figures([plan("a", "e2m1", "uint8")]).layers[0] == {"bops": 600 * 4 * 8}


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
