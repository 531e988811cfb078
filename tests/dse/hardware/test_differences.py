"""Where whole numbers and fake quantization differ."""

import numpy as np

from dse.evaluate import quantized_logits
from dse.hardware.differences import compare
from dse.hardware.report import table
from dse.quantize import Preparation

IMAGES = np.random.default_rng(9).normal(0, 1, (40, 3, 8, 8)).astype(np.float32)


def test_nothing_differs_under_powers_of_two(residual: Preparation, uniform) -> None:
    found = compare(residual, uniform(residual, "int4:channel:mse:power_of_two", "int8:tensor:mse:power_of_two"), IMAGES)
    assert found.largest == 0
    assert found.equal_predictions == len(IMAGES)
    assert [each.requantizer for each in found.operands] == ["input", "shift", "shift", "shift"]
    assert all(each.share == each.largest == 0 for each in found.operands)


def test_an_accumulator_that_overflows_is_seen_where_it_does(residual: Preparation, uniform) -> None:
    assignment = uniform(residual, "int8:channel:mse:power_of_two", "int8:tensor:mse:power_of_two", "fixed:13:wrap")
    found = compare(residual, assignment, IMAGES)
    assert found.operands[0].share == 0
    assert found.operands[1].share > 0
    assert found.largest > 0
    assert all(use.accumulator == "fixed:13:wrap" and use.bits > 13 for use in found.accumulators)


def test_float_accumulators_are_taken_as_exact_ones(residual: Preparation, uniform) -> None:
    exact, floating = (uniform(residual, "e2m1", "post4", accumulator) for accumulator in ("exact", "float32"))
    one, other = compare(residual, exact, IMAGES), compare(residual, floating, IMAGES)
    assert np.array_equal(one.exact_logits, other.exact_logits)
    assert np.array_equal(one.fake_logits, quantized_logits(residual, exact, IMAGES))
    assert [each.requantizer for each in one.operands] == ["input", "thresholds", "thresholds", "thresholds"]


def test_the_table_has_a_row_for_every_operand(attention: Preparation, uniform) -> None:
    images = np.random.default_rng(8).normal(0, 1, (8, 1, 8, 8)).astype(np.float32)
    found = compare(attention, uniform(attention, "int8", "int8"), images)
    frame = table(found)
    rows = [(layer.name, role) for layer in attention.network.layers for role in layer.operands]
    assert sorted(zip(frame["layer"], frame["operand"], strict=True)) == sorted(rows)
    assert set(frame["requantizer"]) == {"input", "multiplier"}
    assert frame["other codes [share]"].between(0, 1).all()
