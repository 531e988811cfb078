"""What an assignment can be exported to, by name."""

import importlib
from collections.abc import Sequence
from typing import cast

import onnx

from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.export import codebook, graph, metadata, qdq
from dse.export.lowering import Lowering
from formats.errors import InvalidValueError
from formats.names import unknown_name

#: a whole graph of its own, in integers only; no other target can be mixed with it
INTEGER = "integer"
#: targets that write operands into the float graph; None for what is imported when it is asked for
LOWERINGS: dict[str, Lowering | None] = {"qdq": qdq.LOWERING, "qonnx": None, "codebook": codebook.LOWERING, "fp4": qdq.FP4}
NAMES = (*LOWERINGS, INTEGER)
#: modules whose ``finish`` completes a graph that a target wrote operands of
_FINISHING = {"qonnx": "dse.export.qonnx_graph"}
DEFAULT = ("qdq", "codebook")


def parse(text: str) -> tuple[str, ...]:
    """Read names of targets joined by commas, in the order in which they are tried. Raises ``KeyError``, ``ValueError``."""
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in NAMES:
            raise unknown_name("target", name, NAMES)
    if INTEGER in names and len(names) > 1:
        raise InvalidValueError(f"target {INTEGER} must be given alone, not with {next(n for n in names if n != INTEGER)}")
    return names


def lowering(name: str) -> Lowering:
    """Return a target that writes operands, by name."""
    found = LOWERINGS[name]
    return cast(Lowering, importlib.import_module(f"dse.export.{name}").LOWERING) if found is None else found


def export(experiment: Experiment, assignment: Assignment, targets: Sequence[str] = DEFAULT) -> onnx.ModelProto:
    """Return the checked ONNX model of an assignment, each operand written by the first of ``targets`` that can.

    Raises ``ValueError``, naming the layer and the targets that can, for an operand that none of them can write.
    """
    if tuple(targets) == (INTEGER,):
        return cast(onnx.ModelProto, importlib.import_module("dse.export.integer").export(experiment, assignment))
    wanted = [lowering(name) for name in targets]
    return graph.build(
        experiment.preparation,
        assignment,
        experiment.subject.dataset.sample_shape,
        wanted,
        metadata.properties(experiment, assignment, targets),
        others=_others(targets),
        finishing={name: importlib.import_module(_FINISHING[name]).finish for name in targets if name in _FINISHING},
    )


def _others(targets: Sequence[str]) -> list[Lowering]:
    """Return the targets that are not asked for, as far as what they are written with is installed."""
    found = []
    for name in LOWERINGS:
        if name not in targets:
            try:
                found.append(lowering(name))
            except ImportError:
                continue
    return found
