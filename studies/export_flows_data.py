"""Two searched assignments for each network through every target and every client: what is written, who runs it, how equal."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import integer, qonnx_execution, runtime, targets
from dse.flows import finn_environment, finn_flow, hls4ml_flow, hls4ml_project
from dse.hardware.compiling import compile_program
from dse.searching import search
from dse.settings import SearchSettings
from formats.errors import BitatlasError
from hwmodels.fpga import devices

MODELS = ("resnet8", "mobilenet", "vit")
#: what flows for FPGAs take: whole numbers, and scales that are shifts
SHIFTS = ("int2", "int3", "int4", "int6", "int8")
MIXED = ("int4", "int8", "e2m1", "e3m2", "pot4", "post4", "ternary", "nf4")
TARGETS = (("qdq",), ("codebook",), ("qdq", "codebook"), ("qonnx",), ("integer",))
#: samples that slow clients run
SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A searched assignment and what it is of."""

    experiment: Experiment
    assignment: Assignment
    kind: str


def subjects(models: Sequence[str], trials: int, folder: Path) -> Iterator[Subject]:
    """Search for each model one assignment of whole numbers scaled by powers of two, and one of mixed formats."""
    for model in models:
        shifts = {
            "weight_formats": tuple(f"{name}:channel:mse:power_of_two" for name in SHIFTS),
            "activation_formats": tuple(f"{name}:tensor:mse:power_of_two" for name in SHIFTS[2:]),
        }
        for kind, formats in (("shifts", shifts), ("mixed", {"formats": MIXED})):
            settings = SearchSettings(
                model=model,
                data="digits",
                objectives=("kl", "lut"),
                trials=trials,
                choose="accuracy>=0.94",
                out=str(folder / f"{model}-{kind}"),
                **formats,  # type: ignore[arg-type]
            )
            found = search(settings, say=lambda line: None)
            chosen = found.chosen.assignment
            yield Subject(
                experiment=found.experiment, assignment=chosen.in_whole_numbers() if kind == "shifts" else chosen, kind=kind
            )


def rows(subject: Subject, scratch: Path) -> Iterator[dict[str, object]]:
    """Yield what comes of every target, with a row for each client that took it."""
    for names in TARGETS:
        row: dict[str, object] = {"model": subject.assignment.model, "assignment": subject.kind, "target": ",".join(names)}
        began = time.monotonic()
        try:
            model = targets.export(subject.experiment, subject.assignment, names)
        except BitatlasError as error:
            yield {**row, "client": "", "result": f"refused: {error}"}
            continue
        row |= _described(model, time.monotonic() - began)
        for client, run in _clients(names).items():
            began = time.monotonic()
            try:
                result = run(subject, model, scratch)
            except BitatlasError as error:
                result = f"refused: {error}"
            yield {**row, "client": client, "result": result, "seconds": round(time.monotonic() - began, 2)}


def _described(model: onnx.ModelProto, seconds: float) -> dict[str, object]:
    counts = Counter(node.op_type for node in model.graph.node)
    return {
        "KiB": round(model.ByteSize() / 1024, 1),
        "operators": sum(counts.values()),
        "kinds": len(counts),
        "functions": len(model.functions),
        "opset": next(each.version for each in model.opset_import if not each.domain),
        "export [s]": round(seconds, 2),
    }


#: a client: (subject, model, scratch folder) to what it says
Client = Callable[[Subject, onnx.ModelProto, Path], str]


def _clients(names: Sequence[str]) -> Mapping[str, Client]:
    if tuple(names) == (targets.INTEGER,):
        return {"onnxruntime": _integers}
    if "qonnx" in names:
        return {"qonnx": _qonnx, "hls4ml, g++": _hls4ml, "finn-plus": _finn}
    return {"onnxruntime": _onnxruntime}


def _images(subject: Subject) -> NDArray[np.float32]:
    return subject.experiment.split("validation").images


def _against_emulator(subject: Subject, found: NDArray[np.float32]) -> str:
    images = _images(subject)[: len(found)]
    return str(runtime.compare(found, quantized_logits(subject.experiment.preparation, subject.assignment, images)))


def _onnxruntime(subject: Subject, model: onnx.ModelProto, scratch: Path) -> str:
    return _against_emulator(subject, runtime.run(model.SerializeToString(), _images(subject)))


def _integers(subject: Subject, model: onnx.ModelProto, scratch: Path) -> str:
    program = compile_program(subject.experiment.preparation, subject.assignment)
    images = _images(subject)
    equal = (integer.run(model.SerializeToString(), program, images) == program.run(images)).all(axis=1)
    exact = f"bit for bit equal to the hardware mode on {int(equal.sum())} of {len(equal)} samples"
    logits, whole = program.logits(images), subject.assignment.in_whole_numbers()
    same = runtime.compare(logits, quantized_logits(subject.experiment.preparation, whole, images))
    if whole == subject.assignment:
        return f"{exact}; fake quantization: {same}"
    return f"{exact}; fake quantization, biases on the same LSBs: {same}; with float biases: {_against_emulator(subject, logits)}"


def _qonnx(subject: Subject, model: onnx.ModelProto, scratch: Path) -> str:
    return _against_emulator(subject, qonnx_execution.run(model, _images(subject)))


def _hls4ml(subject: Subject, model: onnx.ModelProto, scratch: Path) -> str:
    folder = scratch / "hls4ml" / f"{subject.assignment.model}-{subject.kind}"
    found = hls4ml_flow.convert(subject.experiment, subject.assignment, hls4ml_project.Settings(), folder, samples=SAMPLES)
    return "; ".join(
        f"bit for bit equal to {each.with_whom} on {each.equal} of {each.samples} samples" for each in found.agreements
    )


def _finn(subject: Subject, model: onnx.ModelProto, scratch: Path) -> str:
    python = finn_environment.ready(finn_environment.default_folder())
    if python is None:
        return f"not run: no environment of FINN's own ({finn_environment.COMMAND} makes one)"
    device = devices.get(finn_flow.DEVICE)
    settings = finn_flow.Settings(device=device, clock_mhz=device.clock_mhz, fps=None)
    folder = scratch / "finn" / f"{subject.assignment.model}-{subject.kind}"
    found = finn_flow.build(subject.experiment, subject.assignment, settings, python, folder)
    return f"{len(found.nodes)} nodes, all of them hardware; streamlined network: {found.agreement}"


def table(found: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Return the rows as a table."""
    return pd.DataFrame(found)
