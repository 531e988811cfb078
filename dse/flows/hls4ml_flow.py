"""``dse flow hls4ml``: an assignment as an HLS project, compiled by g++ and compared with the emulator."""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from dse.assignment import Assignment
from dse.evaluate import quantized_logits
from dse.experiment import Experiment
from dse.export import qonnx_execution, targets
from dse.flows import hls4ml_conditions, hls4ml_project
from dse.flows.fixed_point import FixedPoint
from dse.flows.folder import project_folder, refuse_others
from dse.flows.hls4ml_project import Settings, Types
from dse.opening import open_assignment
from formats.errors import BitatlasError, InvalidValueError, require

EXPORTED = "network.onnx"
SAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two programs' outputs for the same samples compare."""

    with_whom: str
    samples: int
    #: samples on which every output is equal to the last bit, and on which the largest output is the same
    equal: int
    same_class: int
    largest_difference: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a flow has made and found."""

    experiment: Experiment
    assignment: Assignment
    settings: Settings
    operators: tuple[Types, ...]
    input: FixedPoint
    conversion_seconds: float
    #: None where the project was not compiled, and so not run
    compilation_seconds: float | None
    agreements: tuple[Agreement, ...]

    @property
    def compared(self) -> bool:
        """Whether the project was run."""
        return bool(self.agreements)


def run(options: argparse.Namespace) -> None:
    """Write the project that the options name, with its report."""
    from dse.flows import hls4ml_report

    for name in ("samples", "reuse_factor"):
        if getattr(options, name) < 1:
            raise InvalidValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    settings = Settings(backend=options.backend, interface=options.io, part=options.part, reuse_factor=options.reuse_factor)
    refuse_others(options.out)
    _require(options.compile)
    experiment, assignment = open_assignment(options)
    outcome = convert(experiment, assignment, settings, options.out, samples=options.samples if options.compile else 0)
    print(hls4ml_report.summary(outcome))
    print(f"wrote {options.out}")


def convert(experiment: Experiment, assignment: Assignment, settings: Settings, out: Path, *, samples: int = SAMPLES) -> Outcome:
    """Leave an HLS project and its report in ``out``, compiled and run on ``samples`` validation samples unless that is none.

    Raises ``BitatlasError``, before anything is written, for what hls4ml cannot do exactly.
    """
    from dse.flows import hls4ml_report

    network, fillings = hls4ml_conditions.fillings_of(experiment.preparation, assignment)
    hls4ml_conditions.check_quantizers(network, assignment, fillings)
    model = targets.export(experiment, assignment, ("qonnx",))
    hls4ml_conditions.check_operators(model, network)
    validation = experiment.split("validation").images
    with project_folder(out) as folder:
        project = hls4ml_project.write(model, settings, validation, folder)
        seconds = project.compile() if samples else None
        outcome = Outcome(
            experiment=experiment,
            assignment=assignment,
            settings=settings,
            operators=project.operators,
            input=project.input,
            conversion_seconds=project.conversion_seconds,
            compilation_seconds=seconds,
            agreements=_compare(experiment, assignment, model, project, validation[:samples]) if samples else (),
        )
        project.tidy(out.absolute())
        onnx.save(model, folder / EXPORTED)
        hls4ml_report.write(outcome, folder)
    return outcome


def on_grid(images: NDArray[np.float32], kind: FixedPoint) -> NDArray[np.float32]:
    """Round samples to a fixed-point type, ties to even."""
    ends = kind.range
    whole = np.clip(np.round(np.ldexp(images.astype(np.float64), -kind.exponent)), ends.low, ends.high)
    return np.ldexp(whole, kind.exponent).astype(np.float32)


def _compare(
    experiment: Experiment,
    assignment: Assignment,
    model: onnx.ModelProto,
    project: hls4ml_project.Project,
    images: NDArray[np.float32],
) -> tuple[Agreement, ...]:
    """Run the project, the emulator and qonnx on the same samples, put on the grid of the project's input."""
    given = on_grid(images, project.input)
    found = project.predict(given)
    return (
        agreement("the emulator", found, quantized_logits(experiment.preparation, assignment, given)),
        agreement("qonnx", found, qonnx_execution.run(model, given)),
    )


def agreement(with_whom: str, found: NDArray[np.float32], reference: NDArray[np.float32]) -> Agreement:
    """Compare outputs of shape (N, classes)."""
    return Agreement(
        with_whom=with_whom,
        samples=len(found),
        equal=int((found == reference).all(axis=1).sum()),
        same_class=int((found.argmax(axis=1) == reference.argmax(axis=1)).sum()),
        largest_difference=float(np.abs(found - reference).max()),
    )


def _require(compiles: bool) -> None:
    require("hls4ml", "dse flow hls4ml", extra="flows")
    require("qonnx", "dse flow hls4ml", extra="flows")
    if compiles and shutil.which("g++") is None:
        raise BitatlasError("g++ must be installed to compile the project (Debian's package g++): or give --no-compile")
