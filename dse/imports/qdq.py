"""Quantizers as ONNX has them: QuantizeLinear and DequantizeLinear, with a Clip of codes or of values where they use fewer bits."""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dse.imports.graph import Graph, Handler, Quantizing, Step, StoredTensor
from dse.imports.integers import integer_format
from formats.errors import BitatlasError, InvalidValueError

#: operators that compute on codes or find scales at run time: there is no quantizer to read from them
_CODES, _DYNAMIC = "it takes codes", "its scale is found at run time"
REFUSED = {
    **dict.fromkeys(("DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"), _DYNAMIC),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QLinearConv", "QLinearMatMul", "QGemm"), _CODES),
    **dict.fromkeys(("QLinearAdd", "QLinearMul", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearConcat"), _CODES),
}
#: how far from a whole number a bound divided by its scale may be
CLOSE = 1e-3


def quantize(graph: Graph, step: Step) -> bool:
    """Read a QuantizeLinear of a computed tensor; that of a constant is computed as any other operator is."""
    if step.inputs[0] in graph.constants:
        return False
    scale = graph.number(step, 1, "scale")
    given = graph.constant(step, 2, "zero point")
    zeros = np.zeros((), np.uint8) if given is None else given
    if zeros.size != 1 or step.attributes.get("block_size") or step.attributes.get("output_dtype"):
        raise BitatlasError(f"an activation must be quantized by one scale, zero point and the zero point's type ({step.where})")
    zero = int(zeros.reshape(()).astype(np.float64))
    source, output = step.inputs[0], step.outputs[0]
    kind = zeros.dtype.name
    if not _is_integer(kind):
        name = _float_name(kind, step)
    else:
        low, high = _narrowed(graph, output, *_range(kind))
        clip = _clip_before(graph, source, scale, (low - zero, high - zero))
        if clip is not None:
            (low, high), source = (clip[0] + zero, clip[1] + zero), _without_clip(graph, source)
        name = integer_format(low, high, zero, step.where)
    graph.quantize(step, source, output, Quantizing(format_name=name, scale=scale))
    graph.coded[output] = (scale, zero)
    return True


def dequantize(graph: Graph, step: Step) -> bool:
    """Read a DequantizeLinear: of codes just made, or of stored ones."""
    source = step.inputs[0]
    if source in graph.constants:
        _dequantize_stored(graph, step)
        return True
    zero = int(graph.number(step, 2, "zero point", 0))
    if graph.coded.get(source) != (graph.number(step, 1, "scale"), zero):
        raise BitatlasError(f"codes must be dequantized as they were quantized, not by another scale or zero point ({step.where})")
    graph.rename(step)
    return True


def clip(graph: Graph, step: Step) -> bool:
    """Read a Clip of codes; one of values is an operator like any other."""
    source = step.inputs[0]
    if source in graph.coded:
        graph.rename(step)
        graph.coded[step.outputs[0]] = graph.coded[source]
        return True
    codes = graph.constants.get(source)
    if codes is not None and _is_integer(codes.dtype.name):
        low, high = _range(codes.dtype.name)
        graph.limits[step.outputs[0]] = int(graph.number(step, 1, "min", low)), int(graph.number(step, 2, "max", high))
    return False


def refuse(graph: Graph, step: Step) -> bool:
    """Refuse an operator that takes codes, or finds its scales as it runs."""
    why = REFUSED[step.operator]
    raise BitatlasError(f"quantizers must be static QuantizeLinear and DequantizeLinear, not {step.operator}: {why} ({step.where})")


HANDLERS: dict[str, Handler] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Clip": clip,
    **dict.fromkeys(REFUSED, refuse),
}


def _dequantize_stored(graph: Graph, step: Step) -> None:
    codes = graph.constants[step.inputs[0]]
    scale, zero = graph.constant(step, 1, "scale"), graph.constant(step, 2, "zero point")
    assert scale is not None
    axis = int(step.attributes.get("axis", 1))
    block = int(step.attributes.get("block_size", 0))
    scales = _spread(scale.astype(np.float32), codes.shape, axis, block, step)
    zeros = np.zeros(codes.shape) if zero is None else _spread(zero.astype(np.float64), codes.shape, axis, block, step)
    values = ((codes.astype(np.float64) - zeros).astype(np.float32) * scales).astype(np.float32)
    name = _stored_format(graph, step, codes.dtype.name, zeros)
    graph.store(step, StoredTensor(values=values, scales=scales, format_name=name))


def _stored_format(graph: Graph, step: Step, kind: str, zeros: NDArray[np.floating]) -> str | None:
    if not _is_integer(kind):
        return _float_name(kind, step)
    if kind in ("int32", "uint32"):
        return None
    found = np.unique(zeros)
    if len(found) != 1:
        raise BitatlasError(
            f"zero points of a stored tensor must be all the same, not {found[0]:g} and {found[1]:g} ({step.where})"
        )
    low, high = graph.limits.get(step.inputs[0], _range(kind))
    return integer_format(low, high, int(found[0]), step.where)


def _spread(given: NDArray[np.floating], shape: tuple[int, ...], axis: int, block: int, step: Step) -> NDArray[np.floating]:
    """Return scales or zero points for every element."""
    if block:
        given = np.repeat(given, block, axis=axis)[tuple(slice(size) for size in shape)]
    elif given.ndim == 1 and given.size > 1:
        given = given.reshape([-1 if number == axis % len(shape) else 1 for number in range(len(shape))])
    try:
        return np.ascontiguousarray(np.broadcast_to(given.reshape(()) if given.size == 1 else given, shape))
    except ValueError:
        raise InvalidValueError(
            f"scales must fit codes of shape {shape}, not have the shape {given.shape} ({step.where})"
        ) from None


def _is_integer(kind: str) -> bool:
    return re.fullmatch(r"u?int[0-9]+", kind) is not None


def _range(kind: str) -> tuple[int, int]:
    bits = int(kind.removeprefix("u").removeprefix("int"))
    return (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _float_name(kind: str, step: Step) -> str:
    if not kind.startswith(("float8_", "float4_")):
        raise BitatlasError(f"codes must be integers or float8, not {kind} ({step.where})")
    return kind


def _narrowed(graph: Graph, codes: str, low: int, high: int) -> tuple[int, int]:
    """Return the range that Clips right after the codes leave of theirs."""
    while True:
        readers = graph.readers.get(codes, [])
        if len(readers) != 1 or readers[0].op_type != "Clip" or readers[0].input[0] != codes:
            return low, high
        bounds = [graph.constants.get(name) for name in readers[0].input[1:]]
        low = max(low, int(bounds[0])) if len(bounds) > 0 and bounds[0] is not None else low
        high = min(high, int(bounds[1])) if len(bounds) > 1 and bounds[1] is not None else high
        codes = readers[0].output[0]


def _clip_before(graph: Graph, source: str, scale: float, levels: tuple[int, int]) -> tuple[int, int] | None:
    """Return the lowest and highest level that a Clip right before the quantizer leaves, where it is there for that alone."""
    step = next((step for step in graph.steps if source in step.outputs), None)
    if step is None or step.operator != "Clip" or len(graph.readers.get(source, [])) != 1 or len(step.inputs) != 3:
        return None
    ends = [graph.constants.get(name) for name in step.inputs[1:]]
    if any(end is None or end.size != 1 for end in ends):
        return None
    low, high = (float(end.reshape(())) / scale for end in ends if end is not None)
    if max(abs(low - round(low)), abs(high - round(high))) > CLOSE or round(low) < levels[0] or round(high) > levels[1]:
        return None
    if (round(low), round(high)) == levels:
        return None
    try:
        integer_format(round(low), round(high), 0, step.where)
    except InvalidValueError:
        return None  # a bound of the network's own, such as that of a ReLU6
    return round(low), round(high)


def _without_clip(graph: Graph, source: str) -> str:
    """Take the Clip that makes ``source`` out, and return what it read."""
    index = next(number for number, step in enumerate(graph.steps) if source in step.outputs)
    step = graph.steps[index]
    graph.steps[index] = replace(step, operator="Identity", inputs=step.inputs[:1])
    return step.inputs[0]
