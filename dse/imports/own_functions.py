"""Quantizers as this project exports them: functions named after the format, ``quantize_NAME`` and ``decode_NAME``."""

import numpy as np
import onnx
from onnx import inliner

import formats
from dse.imports.graph import Graph, Handler, Quantizing, Step, StoredTensor
from formats.block import BlockFormat
from formats.errors import BitatlasError, UnknownNameError

DOMAIN = "bitatlas.formats"
QUANTIZE, DECODE = "quantize_", "decode_"


def inlined(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Handler]]:
    """Return the model with all functions put in their calls' places but those of formats, and what reads these."""
    handlers: dict[str, Handler] = {}
    others = []
    for function in model.functions:
        if function.domain == DOMAIN and _format_name(function.name):
            handlers[function.name] = _quantize if function.name.startswith(QUANTIZE) else _decode
        else:
            others.append((function.domain, function.name))
    return (inliner.inline_selected_functions(model, others) if others else model), handlers


def _format_name(function: str) -> str | None:
    """Return the format whose codes stand alone that a function is for, if it is for one."""
    name = function.removeprefix(QUANTIZE).removeprefix(DECODE)
    try:
        found = formats.get(name)
    except UnknownNameError:
        return None
    return None if name == function or isinstance(found, BlockFormat) else name


def _quantize(graph: Graph, step: Step) -> bool:
    name = _format_name(step.operator)
    assert name is not None
    graph.quantize(step, step.inputs[0], step.outputs[0], Quantizing(format_name=name, scale=graph.number(step, 1, "scale")))
    return True


def _decode(graph: Graph, step: Step) -> bool:
    name = _format_name(step.operator)
    assert name is not None
    codes, scale = graph.constant(step, 0, "codes"), graph.constant(step, 1, "scale")
    assert codes is not None
    assert scale is not None
    fmt = formats.registry.scalar(name)
    found = codes.astype(np.int64)
    if found.size and not 0 <= found.min() <= found.max() < 2**fmt.bits:
        raise BitatlasError(f"codes of {name} must be 0 to {2**fmt.bits - 1}, not {found.min()} to {found.max()} ({step.where})")
    scales = np.ascontiguousarray(np.broadcast_to(scale.astype(np.float32), found.shape))
    values = fmt.decode(found.astype(fmt.code_dtype), scales)
    graph.store(step, StoredTensor(values=values, scales=scales, format_name=name))
    return True
