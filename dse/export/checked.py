"""Exports as files: written whole or not at all, and run by another program against the emulator before they take their place."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qonnx_execution, qonnx_operators, runtime, targets
from hwmodels.files import replaced


def export_checked(
    experiment: Experiment, assignment: Assignment, path: Path, names: Sequence[str] = targets.DEFAULT
) -> runtime.Agreement | str:
    """Export an assignment to a file that agrees with the emulator on the validation split, as far as another program can run it.

    QONNX is run by qonnx, all else by onnxruntime. Returns how far the two agree; where neither can run the file, why. Raises
    ``BitatlasError``, leaving no file, where more predictions differ than ``runtime.TOLERANCE`` allows; a single bit is too much
    for integers.
    """
    model = targets.export(experiment, assignment, names)
    with replaced(path) as temporary:
        onnx.save(model, temporary)
        images = experiment.split("validation").images
        if any(imported.domain == qonnx_operators.DOMAIN for imported in model.opset_import):
            if model.functions:
                return "no one program runs both operators of QONNX and functions of a model"
            found = qonnx_execution.run(model, images)
        elif obstacle := runtime.obstacle(model):
            return obstacle
        elif tuple(names) == (targets.INTEGER,):
            return _compare_integers(temporary.read_bytes(), experiment, assignment)
        else:
            found = runtime.run(temporary, images)
        agreement = runtime.compare(found, quantized_logits(experiment.preparation, assignment, images))
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
