"""``dse import-onnx``: a quantized model as an assignment, with its layers and costs, held against the model's own answers."""

import argparse
from dataclasses import replace
from pathlib import Path

import onnx
import pandas as pd

from dse import cost_table, data
from dse.evaluate import quantized_logits
from dse.experiment import Experiment, prepare
from dse.export import qonnx_execution, runtime
from dse.export.qonnx_execution import IR_VERSION
from dse.imports import assignments, onnx_file
from dse.imports import model as models
from dse.imports.assignments import Imported
from dse.models.loading import of_module
from hwmodels.files import write_text

#: samples that a model is run on by its own client, one operator at a time for QONNX
QONNX_SAMPLES = 64
USUAL_BATCH = 64


def run(options: argparse.Namespace) -> None:
    """Import the model, print what is in it, and write the assignment and the table where a folder is named."""
    path: Path = options.onnx
    dataset = data.load(options.data or "digits", Path(options.data_dir) if options.data_dir else None)
    model = models.read(path)
    experiment = prepare(of_module(str(path), model.module, dataset), options.cycles)
    imported = assignments.assignment(model, experiment.preparation.network, str(path), dataset.name)
    frame, notes = _table(experiment, imported)
    measured, reference = experiment.measure(imported.assignment), experiment.float_figures("validation")
    print(cost_table.text(frame))
    print()
    print("\n".join(imported.remarks))
    print(f"{path} on {dataset.name}, {len(dataset.validation)} validation samples")
    print(f"accuracy [share]: {measured.accuracy:.4f} (without the layers' quantizers: {reference.accuracy:.4f})")
    print("\n".join(notes))
    print(compared(path, experiment, imported))
    if options.out:
        figures = {"accuracy": measured.accuracy, "kl": measured.kl, **experiment.priced_cost(imported.assignment)[0].total}
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "layers.csv", frame.to_csv(index=False))
        replace(imported.assignment, figures=figures).write(options.out / "assignment.json")
        print(f"wrote {options.out / 'assignment.json'}")
        print(f"dse search --model {path} looks for other formats from its weights on")


def _table(experiment: Experiment, imported: Imported) -> tuple[pd.DataFrame, list[str]]:
    """Return a row for each layer, what it computes, how and at what cost, with what is to be said of the costs."""
    cost, not_priced = experiment.priced_cost(imported.assignment)
    frame = cost_table.figures(cost, imported.assignment, experiment.cost_models)
    workloads = [layer.workload for layer in experiment.preparation.network.layers]
    accumulators = [layer.accumulator for layer in imported.assignment.layers.values()]
    frame.insert(1, "kind", [*[workload.kind for workload in workloads], ""])
    frame.insert(2, "MACs", [*[w.macs for w in workloads], sum(w.macs for w in workloads)])
    frame.insert(3, "weights", [*[w.weights for w in workloads], sum(w.weights for w in workloads)])
    frame.insert(6, "accumulator", [*accumulators, ""])
    return frame, [*cost_table.notes(cost, experiment.cost_models), *(f"left out: {reason}" for reason in not_priced)]


def compared(path: Path, experiment: Experiment, imported: Imported) -> str:
    """Run the file itself, by onnxruntime or the package qonnx, and say how far the imported assignment agrees with it.

    Raises ``BitatlasError`` where more predictions differ than ``runtime.TOLERANCE`` allows, though every quantizer is known.
    """
    model = onnx_file.read(path)
    model.ir_version = min(model.ir_version, IR_VERSION)
    images = experiment.split("validation").images
    client = "qonnx" if runtime.obstacle(model) else "onnxruntime"
    try:
        if client == "qonnx":
            images = images[:QONNX_SAMPLES]
            logits = qonnx_execution.run(model, images, _batch(model))
        else:
            logits = runtime.run(model.SerializeToString(), images, _batch(model), optimized=False)
    except Exception as error:  # whatever the client raises: the model is others', and so is the client
        cause = (str(error).strip() or "no message").splitlines()[0][:200]
        return f"not compared with the file's own answers: {client} fails ({cause})"
    agreement = runtime.compare(quantized_logits(experiment.preparation, imported.assignment, images), logits)
    if imported.exact:
        runtime.check(agreement, str(path))
    return f"{client} against the imported assignment: {agreement}"


def _batch(model: onnx.ModelProto) -> int:
    """Return the batch that the file fixes, or one of a usual size."""
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    return (sizes[0].dim_value if sizes else 0) or USUAL_BATCH
