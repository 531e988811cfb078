"""Every way to build the stages of a layer in a dataflow pipeline, each with its cycles and the resources that it takes.

A network is a chain of stages, all at work on different parts of a sample at once, in the manner of FINN: the slowest stage sets
the rate. What a stage holds:

- ``matrix``: PE units of SIMD lanes each; the weights, read PE * SIMD at a time (stored twice over where they are computed, as a
  product's second operand is: one set is read while the next one is written); where outputs are folded, a memory that keeps the
  inputs for the further outputs; FINN's 300 LUTs of control
- ``window``: the buffer of a sliding window, and FINN's 300 LUTs of control
- ``padding``: nothing but its stream
- ``requantizer``: lanes that turn accumulators into codes of the format that the next layers read, and their parameters for every
  channel; for accumulators in Z[sqrt(2)] an even and an odd sum joined by the constant 181/128, in four additions

Every stage ends in a FIFO of two words. Not counted: converters between the widths of two stages' streams, deep FIFOs of
branches that wait for each other, pooling, additions, softmax and other operators that are no layers here, and the interfaces of
the device. A depthwise convolution has its window and its matrix in one stage, which work on the same channels at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats.arithmetic.width import bound_bits
from formats.format import Format
from hwmodels.cost import NotPricedError
from hwmodels.finn_formula import LUT_PER_LAYER, operand
from hwmodels.fpga import folding as fold
from hwmodels.fpga.devices import Usage
from hwmodels.fpga.folding import Folding, divisors, matrix_shape
from hwmodels.fpga.formula_prices import FACTOR_BITS, SHIFT_BITS, levels
from hwmodels.fpga.memory import LUT_DEPTH, STYLES, Style, fifo_luts, memory
from hwmodels.fpga.unit_cost import KINDS, Origin, RequantizerKind, RequantizerPrice, UnitPrice
from hwmodels.workload import Convolution, LayerWorkload

StageKind = Literal["padding", "window", "matrix", "requantizer"]
FIFO_DEPTH = 2
#: additions of a product with 181/128, the nearest constant of few digits to the square root of two
ROOT_ADDITIONS = 4


class Option(NamedTuple):
    """One way to build a stage."""

    cycles: int
    usage: Usage
    folding: Folding
    #: what its memories are made of, its recipe and where its figures come from, in words
    memory: str
    recipe: str
    origin: Origin
    #: longest path of a multiply-accumulate unit, over cells alone; 0 for other stages
    arrival_ps: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A stage of the pipeline with every way to build it that no other way beats in cycles and all resources."""

    layer: str
    kind: StageKind
    options: tuple[Option, ...]

    @cached_property
    def cycles(self) -> NDArray[np.int64]:
        """Cycles of each option, int64."""
        return np.array([option.cycles for option in self.options], dtype=np.int64)

    @cached_property
    def usage(self) -> NDArray[np.float64]:
        """Resources of each option, float64 of shape (options, resources)."""
        return np.array([option.usage for option in self.options], dtype=np.float64)


def whole(usage: Usage) -> Usage:
    """Round every resource up to a whole number."""
    return Usage(*(math.ceil(amount - 1e-9) for amount in usage))


def undominated(options: list[Option]) -> tuple[Option, ...]:
    """Return the options that no other one equals or beats in cycles and in every resource; of equal ones the first."""
    table = np.array([(option.cycles, *option.usage) for option in options], dtype=np.float64)
    order = np.lexsort((*table.T[1:], table.T[0]))
    kept: list[int] = []
    best = np.empty((0, table.shape[1]))
    for index in order:
        # sorted by cycles first, so nothing that comes later can beat what was kept
        if not (best <= table[index]).all(axis=1).any():
            kept.append(int(index))
            best = np.vstack((best, table[index]))
    return tuple(options[index] for index in kept)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Where the cost of arithmetic comes from."""

    unit: UnitPrice
    requantizer: RequantizerPrice


def layer_stages(
    workload: LayerWorkload, weight: Format, activation: Format, outputs: tuple[Format, ...], prices: Prices
) -> tuple[Stage, ...]:
    """Return the stages of a layer; one requantizer for each of ``outputs``, the formats that its readers need.

    What was asked for before comes from memory. Raises ``NotPricedError`` for formats that have no price.
    """
    bits = accumulator_bits(workload, weight, activation)
    root = operand(weight.name).root or operand(activation.name).root
    requantizers = (_requantizer_stage(workload, bits, root, output, prices) for output in outputs)
    return (*_arithmetic_stages(workload, weight, activation, prices), *requantizers)


@lru_cache(maxsize=1024)  # a stage of hundreds of options takes about 100 kB
def _arithmetic_stages(workload: LayerWorkload, weight: Format, activation: Format, prices: Prices) -> tuple[Stage, ...]:
    shape = workload.convolution
    stages = []
    if shape is not None and shape.padded:
        stages.append(_stage(workload, "padding", padding_options(shape, activation.bits)))
    if shape is not None and not shape.pointwise and not shape.depthwise:
        stages.append(_stage(workload, "window", window_options(shape, activation.bits)))
    return (*stages, _stage(workload, "matrix", matrix_options(workload, weight, activation, prices.unit)))


@lru_cache(maxsize=4096)
def _requantizer_stage(workload: LayerWorkload, bits: int, root: bool, output: Format, prices: Prices) -> Stage:
    return _stage(workload, "requantizer", requantizer_options(workload, bits, root, output, prices.requantizer))


def accumulator_bits(workload: LayerWorkload, weight: Format, activation: Format) -> int:
    """Width in which no sum of the layer overflows, whatever its operands."""
    return _bound_bits(activation, weight, workload.dot_length)


@cache
def _bound_bits(activation: Format, weight: Format, length: int) -> int:
    return bound_bits(activation, weight, length)


def _stage(workload: LayerWorkload, kind: StageKind, options: Iterator[Option]) -> Stage:
    return Stage(layer=workload.name, kind=kind, options=undominated(list(options)))


def _fifo(width: int) -> Usage:
    return Usage(lut=fifo_luts(width, FIFO_DEPTH))


def padding_options(shape: Convolution, bits: int) -> Iterator[Option]:
    """Yield every padding of inputs of ``bits``."""
    for simd in divisors(shape.input_channels):
        usage = whole(_fifo(simd * bits))
        yield Option(fold.padding_cycles(shape, simd), usage, Folding(simd=simd), "", "", "formula")


def window_options(shape: Convolution, bits: int) -> Iterator[Option]:
    """Yield every sliding window over inputs of ``bits``."""
    for simd in divisors(shape.input_channels):
        for parallel in (False, True):
            if not parallel or fold.can_be_parallel(shape, simd):
                yield from _windows(shape, simd, bits, parallel=parallel)


def _windows(shape: Convolution, simd: int, bits: int, *, parallel: bool) -> Iterator[Option]:
    """Yield a window of one folding with each style of memory."""
    cycles = fold.window_cycles(shape, simd, parallel=parallel)
    number, width, depth = fold.window_memory(shape, simd, bits, parallel=parallel)
    handed_on = simd * bits * (math.prod(shape.kernel) if parallel else 1)
    control = Usage(lut=LUT_PER_LAYER + fifo_luts(handed_on, FIFO_DEPTH), flip_flops=handed_on)
    for style in STYLES:
        block = memory(style, width, depth, written=True)
        usage = whole(control.plus(Usage(*(number * amount for amount in block))))
        yield Option(cycles, usage, Folding(simd=simd), style, "parallel window" if parallel else "", "formula")


def matrix_options(workload: LayerWorkload, weight: Format, activation: Format, price: UnitPrice) -> Iterator[Option]:
    """Yield every matrix stage: each folding, with and without DSP slices, and each memory for the weights."""
    shape = matrix_shape(workload)
    depthwise = workload.convolution is not None and workload.convolution.depthwise
    for simd, dsp in product(divisors(shape.columns), (False, True)):
        unit = price(weight, activation, lanes=simd, dot_length=shape.columns, dsp=dsp)
        if dsp and not unit.dsp:
            continue  # the synthesiser found no use for them
        arithmetic = Usage(lut=unit.lut, flip_flops=unit.flip_flops, dsp=unit.dsp)
        for pe in divisors(shape.rows):
            folding = Folding(pe=pe, simd=simd)
            logic = Usage(*(pe * amount for amount in arithmetic)).plus(_control(workload, folding, weight, activation))
            cycles = fold.matrix_cycles(workload, folding)
            for built in _with_weights(workload, folding, weight.bits, logic, cycles, unit.recipe, unit.origin):
                option = built._replace(arrival_ps=unit.arrival_ps)
                if depthwise:
                    yield from _with_window(workload, option, activation.bits)
                else:
                    yield option


def _control(workload: LayerWorkload, folding: Folding, weight: Format, activation: Format) -> Usage:
    """Control, the memory that keeps inputs for further outputs, and the FIFO of the results."""
    shape = matrix_shape(workload)
    usage = Usage(lut=LUT_PER_LAYER).plus(_fifo(folding.pe * accumulator_bits(workload, weight, activation)))
    if folding.pe < shape.rows and not (workload.convolution is not None and workload.convolution.depthwise):
        inputs = memory("lutram", folding.simd * activation.bits, shape.columns // folding.simd, written=True)
        usage = usage.plus(inputs)
    return usage


def _with_weights(
    workload: LayerWorkload, folding: Folding, bits: int, logic: Usage, cycles: int, recipe: str, origin: Origin
) -> Iterator[Option]:
    shape = matrix_shape(workload)
    words = shape.matrices * (shape.rows // folding.pe) * (shape.columns // folding.simd)
    computed = workload.weights == 0
    for style in STYLES:
        stored = memory(style, folding.pe * folding.simd * bits, 2 * words if computed else words, written=computed)
        yield Option(cycles, whole(logic.plus(stored)), folding, style if any(stored) else "wires", recipe, origin)


def _with_window(workload: LayerWorkload, option: Option, bits: int) -> Iterator[Option]:
    """Join the matrix of a depthwise convolution with a window over the channels that it works on."""
    shape = workload.convolution
    assert shape is not None
    simd = math.gcd(option.folding.pe, shape.input_channels)
    for window in _windows(shape, simd, bits, parallel=option.folding.simd > 1):
        yield option._replace(
            cycles=max(option.cycles, window.cycles),
            usage=option.usage.plus(window.usage),
            memory=f"{option.memory}, window {window.memory}",
        )


def requantizer_options(
    workload: LayerWorkload, bits: int, root: bool, output: Format, price: RequantizerPrice
) -> Iterator[Option]:
    """Yield every requantizer from accumulators of ``bits`` to codes of ``output``."""
    channels = workload.output_channels
    priced = 0
    for kind, dsp in (*((kind, False) for kind in KINDS), ("multiplier", True)):
        try:
            lane = price(bits, output, kind=kind, dsp=dsp)
        except NotPricedError:
            continue  # this kind does not lead to the format; another one may
        priced += 1
        joined = ROOT_ADDITIONS * bits if root else 0
        logic = Usage(lut=lane.lut + joined, flip_flops=lane.flip_flops, dsp=lane.dsp)
        for pe, style in product(divisors(channels), STYLES[:2]):
            stored = _parameters(kind, style, bits, output, channels // pe)
            usage = whole(Usage(*(pe * amount for amount in logic.plus(stored))).plus(_fifo(pe * output.bits)))
            cycles = fold.requantizer_cycles(workload, pe)
            yield Option(cycles, usage, Folding(pe=pe), style if any(stored) else "wires", kind, lane.origin)
    if not priced:
        raise NotPricedError(f"output format must be one that a requantizer is priced for, not {output.name}")


def _parameters(kind: RequantizerKind, style: Style, bits: int, output: Format, depth: int) -> Usage:
    """Memory of a lane's thresholds or factors, for the ``depth`` channels that it works on in turn.

    A threshold has one bit more than the accumulator, for levels that no sum reaches. A search has a memory for each bit of the
    level's number, twice as deep from one to the next, as FINN's Thresholding_rtl has.
    """
    if kind == "multiplier":
        return memory(style, FACTOR_BITS + SHIFT_BITS + bits, depth)
    if kind == "thresholds":
        return memory(style, (levels(output) - 1) * (bits + 1), depth)
    usage = Usage()
    for stage in range(math.ceil(math.log2(levels(output)))):
        words = depth << stage
        # a block RAM for what a few LUTs hold would be a waste
        usage = usage.plus(memory(style if words > LUT_DEPTH else "lutram", bits + 1, words))
    return usage
