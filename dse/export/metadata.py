"""What an exported model says of itself: where it comes from, what it costs, and what it was calibrated on."""

import json
from collections.abc import Sequence
from importlib.metadata import version

from dse.assignment import Assignment
from dse.experiment import Experiment

PACKAGES = ("bitatlas", "onnx", "torch")


def properties(experiment: Experiment, assignment: Assignment, targets: Sequence[str]) -> dict[str, str]:
    """Return the properties of a model, all of them text.

    - ``bitatlas.assignment``: the assignment as ``dse`` reads it from a file.
    - ``bitatlas.targets``: the targets asked for.
    - ``bitatlas.costs``: a JSON table of value, unit and what is counted, by name.
    - ``bitatlas.not_priced``: a JSON list of why cost models were left out.
    - ``bitatlas.versions``: a JSON table of the versions of this program and of those that made the graph.
    - ``bitatlas.calibration`` and ``bitatlas.network``: digests of the samples that scales come from and of the float network.
    """
    cost, not_priced = experiment.priced_cost(assignment)
    metrics = {metric.name: metric for metric in cost.metrics}
    costs = {
        name: {"value": value, "unit": metrics[name].unit, "counts": metrics[name].summary} for name, value in cost.total.items()
    }
    return {
        "bitatlas.assignment": assignment.text,
        "bitatlas.targets": ",".join(targets),
        "bitatlas.costs": json.dumps(costs),
        "bitatlas.not_priced": json.dumps(not_priced),
        "bitatlas.versions": json.dumps({name: version(name) for name in PACKAGES}),
        "bitatlas.calibration": experiment.preparation.calibration.digest,
        "bitatlas.network": experiment.preparation.network.digest,
    }
