"""The package qonnx computes from exported models what the emulator computes."""

from collections.abc import Callable

import numpy as np
import pytest

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qonnx_execution, targets

pytestmark = pytest.mark.flows

SAMPLES = 100
PAIRS = (
    ("int4", "int8"),
    ("int3_narrow", "int5"),
    ("e2m1", "e4m3"),
    ("float8_e5m2", "float8_e4m3fn"),
    ("ternary", "e3m2"),
    ("binary", "binary"),
    ("pot4", "uint8"),
)


def compare(experiment: Experiment, assignment: Assignment) -> tuple[np.ndarray, np.ndarray]:
    images = experiment.split("validation").images[:SAMPLES]
    model = targets.export(experiment, assignment, ("qonnx",))
    return qonnx_execution.run(model, images), quantized_logits(experiment.preparation, assignment, images)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet8"])
@pytest.mark.parametrize(("weight", "activation"), PAIRS)
def test_with_scales_that_are_powers_of_two_nothing_differs(
    model: str, weight: str, activation: str, make_experiment: Callable[[str], Experiment], uniform: Callable[..., Assignment]
) -> None:
    experiment = make_experiment(model)
    assignment = uniform(experiment, f"{weight}:channel:mse:power_of_two", f"{activation}:tensor:mse:power_of_two")
    found, reference = compare(experiment, assignment)
    np.testing.assert_array_equal(found, reference)


@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet8"])
@pytest.mark.parametrize(("weight", "activation"), PAIRS)
def test_with_other_scales_predictions_are_equal(
    model: str, weight: str, activation: str, make_experiment: Callable[[str], Experiment], uniform: Callable[..., Assignment]
) -> None:
    """Sums in another order may move a value to the next level of a quantizer: an output moves by little then."""
    experiment = make_experiment(model)
    found, reference = compare(experiment, uniform(experiment, weight, activation, exact=False))
    np.testing.assert_array_equal(found.argmax(axis=1), reference.argmax(axis=1))
    assert np.abs(found - reference).max() < 0.05 * np.abs(reference).max()
    assert np.median(np.abs(found - reference)) < 1e-5


def test_a_transformer_is_executed(vit: Experiment, uniform: Callable[..., Assignment]) -> None:
    found, reference = compare(vit, uniform(vit, "int8", "int12", exact=False))
    np.testing.assert_array_equal(found.argmax(axis=1), reference.argmax(axis=1))
    np.testing.assert_allclose(found, reference, rtol=0, atol=0.05)
