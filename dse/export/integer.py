"""The target ``integer``: a graph of integers alone, from the input's codes to the logits, equal to the hardware mode."""

import json
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.export import choosing, integer_steps, metadata, runtime, targets
from dse.export.graph import check, clean_names
from dse.export.lowering import Parts
from dse.hardware.accumulate import Accumulate, Operand
from dse.hardware.compiling import compile_program
from dse.hardware.program import INPUT, Program
from dse.network import ROLES, Layer, Network, Role
from formats.errors import BitatlasError, InvalidValueError
from formats.quantizer import Quantizer
from formats.tensor_quantizer import TensorQuantizer

NAME = "integer"
#: sums are int32 in ONNX' integer products
SUM_BITS = 32


def export(experiment: Experiment, assignment: Assignment) -> onnx.ModelProto:
    """Return the checked model of an assignment: ``codes`` (batch, …) of the input's format to ``logits`` (batch, classes).

    Its properties say by which format and scale the input is encoded, and what one unit of the logits is worth. Raises
    ``BitatlasError``, naming the layer, for operands that are no whole numbers of 8 bits, for scales by group, for accumulators
    that are too narrow for their layer and for operators without a whole-number form.
    """
    network = experiment.preparation.network
    refuse_early(network, assignment)
    program = compile_program(experiment.preparation, assignment)
    _refuse(program, network, assignment)
    properties = metadata.properties(experiment, assignment, (NAME,))
    return build(program, experiment.subject.dataset.sample_shape, properties)


def refuse_early(network: Network, assignment: Assignment) -> None:
    """Refuse what the quantizers alone tell, before any weight is prepared."""
    for layer in network.layers:
        for role in ROLES:
            refusal = _refusal(role, assignment.layers[layer.name].quantizer(role), computed=role in layer.operands)
            if refusal:
                raise InvalidValueError(f"{role} exported by {NAME} must be {refusal} {_where(layer, assignment)}")


def _refusal(role: Role, quantizer: TensorQuantizer, *, computed: bool) -> str:
    if not isinstance(quantizer, Quantizer) or quantizer.granularity.name not in ("tensor", "channel"):
        return f"a format with scales by tensor or channel, not {quantizer}"
    operand = Operand(format=quantizer.format)
    if computed and not operand.plain:
        return f"whole numbers of 8 bits in a row, such as int8, not {quantizer.format.name}"
    low, high = int(operand.tables[0].min()), int(operand.tables[0].max())
    if operand.has_root or not -128 <= low <= high <= (127 if low < 0 else 255):
        return f"multiples of one LSB within 8 bits, not {quantizer.format.name}"
    return ""


def _where(layer: Layer, assignment: Assignment) -> str:
    others = [targets.lowering(name) for name in targets.LOWERINGS]
    able = choosing.able(layer, assignment.layers[layer.name], others)
    return f"(layer {layer.name!r}); targets that can: {able}"


def _refuse(program: Program, network: Network, assignment: Assignment) -> None:
    """Refuse accumulators that could overflow: those of ONNX have 32 bits, whatever the assignment says."""
    for each in program.instructions:
        if isinstance(each.step, Accumulate):
            step = each.step
            needed, held = step.bound.bit_length() + 1, min(step.accumulator.bits or SUM_BITS, SUM_BITS)
            if needed > held:
                what = f"hold every sum, {needed} bits, not have {held}; nearest: fixed:{needed} or exact"
                raise InvalidValueError(
                    f"accumulator exported by {NAME} must {what} {_where(network.layer(step.layer), assignment)}"
                )


def build(program: Program, sample_shape: tuple[int, ...], properties: dict[str, str]) -> onnx.ModelProto:
    """Return the checked model of a program, for codes of shape (batch, *sample_shape)."""
    parts = Parts(opsets={"": integer_steps.OPSET})
    parts.add("Cast", [INPUT], f"{INPUT}/wide", to=TensorProto.INT64)
    plain = clean_names(each.output for each in program.instructions)
    names = {**plain, INPUT: f"{INPUT}/wide"}
    for each in program.instructions:
        integer_steps.write(each.step, [names[name] for name in each.operands], names[each.output], parts)
    narrow = program.output.bits < SUM_BITS
    kind = TensorProto.INT32 if narrow else TensorProto.INT64
    parts.add("Cast", [names[program.output.name]], "logits", to=kind)
    _store_once(parts)
    input_kind = TensorProto.INT8 if program.input_format.signed else TensorProto.UINT8
    inputs = [helper.make_tensor_value_info(INPUT, input_kind, ["batch", *sample_shape])]
    outputs = [helper.make_tensor_value_info("logits", kind, ["batch", program.classes])]
    graph = helper.make_graph(parts.nodes, "integer", inputs, outputs, parts.initializers)
    opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(parts.opsets.items())]
    model = helper.make_model(graph, producer_name="bitatlas", opset_imports=opsets, functions=list(parts.functions.values()))
    model.ir_version = helper.find_min_ir_version_for(opsets, ignore_unknown=True)
    own = {
        "bitatlas.input": json.dumps({"format": program.input_format.name, "scale": float(np.float32(program.input_scale))}),
        "bitatlas.output": json.dumps({"scale": float(program.output.unit.flat[0])}),
        "bitatlas.accumulators": json.dumps(_accumulators(program)),
    }
    helper.set_model_props(model, {**properties, **own})
    check(model)
    return model


def _store_once(parts: Parts) -> None:
    """Keep one of equal initializers: functions by table have the same tables throughout."""
    kept: dict[bytes, onnx.TensorProto] = {}
    renamed = {}
    for tensor in parts.initializers:
        bare = onnx.TensorProto()
        bare.CopyFrom(tensor)
        bare.ClearField("name")
        renamed[tensor.name] = kept.setdefault(bare.SerializeToString(), tensor).name
    parts.initializers = list(kept.values())
    for node in parts.nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _accumulators(program: Program) -> dict[str, dict[str, str | int]]:
    steps = [each.step for each in program.instructions if isinstance(each.step, Accumulate)]
    return {step.layer: {"accumulator": str(step.accumulator), "bits_needed": step.bound.bit_length() + 1} for step in steps}


def run(model: bytes, program: Program, images: NDArray[np.float32], batch: int = 64) -> NDArray[np.int64]:
    """Run a model by onnxruntime on (N, …) samples, encoded as the program does, and return its logits as int64."""
    session = runtime.session(model)
    dtype = np.int8 if program.input_format.signed else np.uint8
    parts: Sequence[NDArray[np.int64]] = [
        session.run(None, {INPUT: program.encode(images[i : i + batch]).astype(dtype)})[0] for i in range(0, len(images), batch)
    ]
    return np.concatenate(parts).astype(np.int64)


def require_equal(found: NDArray[np.int64], expected: NDArray[np.int64], where: str) -> None:
    """Raise where a single bit of the logits differs."""
    if not np.array_equal(found, expected):
        count = int((found != expected).any(axis=1).sum())
        raise BitatlasError(
            f"integer model must equal the emulator bit for bit, not differ on {count} of {len(found)} samples: {where}"
        )
