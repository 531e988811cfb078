"""Quantizers as QONNX has them (arXiv 2206.07527): Quant, BipolarQuant and FloatQuant, each from float32 to float32."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import formats
from dse.imports.graph import Graph, Handler, Quantizing, Step, StoredTensor
from dse.imports.integers import HIGHEST_BITS, integer_format
from formats.errors import BitatlasError, UnknownNameError

#: roundings that mean to nearest, ties to even
ROUNDINGS = ("ROUND", "HALF_EVEN")
#: operators that are no quantizers that a format and a scale stand for
REFUSED = {
    "Trunc": "it drops bits of sums",
    "MultiThreshold": "it is a step function of its own thresholds; import the model before FINN's conversion",
}
#: minifloats with other special values than ``e{E}m{M}``, by exponent and mantissa bits
STANDARD = {
    (4, 3): ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e4m3"),
    (5, 2): ("float8_e5m2", "float8_e5m2fnuz"),
    (3, 4): ("float8_e3m4",),
}


class _Found(NamedTuple):
    """A format, None for integers wider than any, and the scale of its values as stored."""

    format_name: str | None
    scale: NDArray[np.float32]
    #: for integers without a format
    low: float = 0
    high: float = 0


def quant(graph: Graph, step: Step) -> bool:
    """Read a Quant: integers of a width that an input gives."""
    _check_rounding(step)
    scale = graph.constant(step, 1, "scale")
    zero, bits = graph.number(step, 2, "zero point"), graph.number(step, 3, "bit width")
    assert scale is not None
    if bits != round(bits) or zero != round(zero):
        raise BitatlasError(f"bit width and zero point of Quant must be whole, not {bits:g} and {zero:g} ({step.where})")
    signed, narrow = bool(step.attributes.get("signed", 1)), bool(step.attributes.get("narrow", 0))
    low = -(2 ** (int(bits) - 1)) + narrow if signed else 0
    high = 2 ** (int(bits) - signed) - 1 - (narrow and not signed)
    name = None if bits > HIGHEST_BITS else integer_format(low, high, int(zero), step.where)
    return _note(graph, step, _Found(name, scale.astype(np.float32), low, high))


def bipolar(graph: Graph, step: Step) -> bool:
    """Read a BipolarQuant: signs, that of zero positive."""
    scale = graph.constant(step, 1, "scale")
    assert scale is not None
    return _note(graph, step, _Found("binary", scale.astype(np.float32)))


def minifloat(graph: Graph, step: Step) -> bool:
    """Read a FloatQuant; an exponent bias other than the format's own is a power of two that goes to the scale."""
    _check_rounding(step)
    scale = graph.constant(step, 1, "scale")
    labels = ("exponent bits", "mantissa bits", "exponent bias", "largest value")
    exponent, mantissa, bias, largest = (graph.number(step, place, label) for place, label in enumerate(labels, start=2))
    assert scale is not None
    factor = 2.0 ** (2 ** (exponent - 1) - 1 - bias)
    for name, own in _minifloats(int(exponent), int(mantissa)):
        if float(formats.registry.scalar(name).largest) * own * factor == largest:
            return _note(graph, step, _Found(name, (scale.astype(np.float64) * factor * own).astype(np.float32)))
    found = f"{exponent:g} exponent and {mantissa:g} mantissa bits up to {largest:g}"
    raise BitatlasError(f"FloatQuant must be a known minifloat, not one of {found} ({step.where})")


def refuse(graph: Graph, step: Step) -> bool:
    """Refuse an operator that no format stands for."""
    why = REFUSED[step.operator]
    raise BitatlasError(f"quantizers must be Quant, BipolarQuant or FloatQuant, not {step.operator}: {why} ({step.where})")


HANDLERS: dict[str, Handler] = {
    "Quant": quant,
    "IntQuant": quant,
    "BipolarQuant": bipolar,
    "FloatQuant": minifloat,
    **dict.fromkeys(REFUSED, refuse),
}


def _check_rounding(step: Step) -> None:
    rounding = str(step.attributes.get("rounding_mode", "ROUND")).upper()
    if rounding not in ROUNDINGS:
        raise BitatlasError(f"rounding of {step.operator} must be ROUND, not {rounding} ({step.where})")


def _minifloats(exponent: int, mantissa: int) -> Iterator[tuple[str, float]]:
    """Return candidates, each with the factor that its values have to those of the usual bias."""
    for name in (f"e{exponent}m{mantissa}", *STANDARD.get((exponent, mantissa), ())):
        try:
            fmt = formats.registry.scalar(name)
        except UnknownNameError:
            continue
        usual = 2.0 ** (1 - (2 ** (exponent - 1) - 1) - mantissa)  # the smallest subnormal number
        positive = fmt.values[fmt.values > 0]
        yield name, usual / float(positive.min())


def _note(graph: Graph, step: Step, found: _Found) -> bool:
    source = step.inputs[0]
    if source in graph.constants:
        values = graph.constants[source].astype(np.float32)
        scales = np.ascontiguousarray(np.broadcast_to(found.scale, values.shape))
        if found.format_name is None:
            quantized = np.clip(np.rint(values / scales), found.low, found.high).astype(np.float32) * scales
        else:
            quantized = formats.registry.scalar(found.format_name).quantize(values, scales)
        graph.store(step, StoredTensor(values=quantized, scales=scales, format_name=found.format_name))
        return True
    if found.scale.size != 1 or found.format_name is None:
        raise BitatlasError(f"an activation must be quantized by one scale and at most {HIGHEST_BITS} bits ({step.where})")
    graph.quantize(step, source, step.outputs[0], Quantizing(format_name=found.format_name, scale=float(found.scale.reshape(()))))
    return True
