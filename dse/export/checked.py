"""Exports as files: written whole or not at all, and run by onnxruntime against the emulator before they take their place."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import runtime, targets
from hwmodels.files import replaced


def export_checked(
    experiment: Experiment, assignment: Assignment, path: Path, names: Sequence[str] = targets.DEFAULT
) -> runtime.Agreement | str:
    """Export an assignment to a file that agrees with the emulator on the validation split, as far as onnxruntime can run it.

    Returns how far the two agree; where onnxruntime cannot run the file, why. Raises ``BitatlasError``, leaving no file, where more
    predictions differ than ``runtime.TOLERANCE`` allows; a single bit is too much for integers.
    """
    model = targets.export(experiment, assignment, names)
    with replaced(path) as temporary:
        onnx.save(model, temporary)
        obstacle = runtime.obstacle(model)
        if obstacle:
            return obstacle
        if tuple(names) == (targets.INTEGER,):
            return _compare_integers(temporary.read_bytes(), experiment, assignment)
        images = experiment.split("validation").images
        reference = quantized_logits(experiment.preparation, assignment, images)
        agreement = runtime.compare(runtime.run(temporary, images), reference)
        runtime.check(agreement, f"{assignment.model} on {assignment.data}")
    return agreement


def _compare_integers(model: bytes, experiment: Experiment, assignment: Assignment) -> runtime.Agreement:
    from dse.export import integer
    from dse.hardware.compiling import compile_program

    images = experiment.split("validation").images
    program = compile_program(experiment.preparation, assignment)
    found, expected = integer.run(model, program, images), program.run(images)
    integer.require_equal(found, expected, f"{assignment.model} on {assignment.data}")
    return runtime.compare((found * program.output.unit).astype(np.float32), program.logits(images))
