"""Small workloads for tests."""

import math

from formats import Quantizer
from hwmodels.cost import LayerPlan
from hwmodels.workload import Convolution, LayerWorkload


def dense(inputs: int = 12, outputs: int = 8, vectors: int = 1, name: str = "dense") -> LayerWorkload:
    return LayerWorkload(
        name=name,
        kind="linear",
        macs=vectors * inputs * outputs,
        weights=inputs * outputs,
        output_channels=outputs,
        activations_in=vectors * inputs,
        activations_out=vectors * outputs,
        dot_length=inputs,
    )


def convolution(
    channels: int,
    outputs: int,
    kernel: tuple[int, ...],
    size: tuple[int, ...],
    *,
    stride: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    padding: int = 0,
    groups: int = 1,
    name: str = "convolution",
) -> LayerWorkload:
    axes = len(kernel)
    stride, dilation = stride or (1,) * axes, dilation or (1,) * axes
    out = tuple((n + 2 * padding - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(size, kernel, stride, dilation, strict=True))
    dot_length = channels // groups * math.prod(kernel)
    return LayerWorkload(
        name=name,
        kind="convolution",
        macs=math.prod(out) * outputs * dot_length,
        weights=outputs * dot_length,
        output_channels=outputs,
        activations_in=channels * math.prod(size),
        activations_out=outputs * math.prod(out),
        dot_length=dot_length,
        convolution=Convolution(
            input_channels=channels,
            groups=groups,
            kernel=kernel,
            stride=stride,
            padding=((padding, padding),) * axes,
            dilation=dilation,
            input_size=size,
            output_size=out,
        ),
    )


def heads(matrices: int = 2, rows: int = 6, length: int = 4, columns: int = 10, name: str = "scores") -> LayerWorkload:
    return LayerWorkload(
        name=name,
        kind="product",
        macs=matrices * rows * length * columns,
        weights=0,
        output_channels=columns,
        activations_in=matrices * rows * length,
        activations_out=matrices * rows * columns,
        dot_length=length,
        matrices=matrices,
    )


def plan(workload: LayerWorkload, weight: str = "int4", activation: str = "uint4", *outputs: str) -> LayerPlan:
    return LayerPlan(
        workload=workload,
        weight=Quantizer.parse(weight),
        activation=Quantizer.parse(activation),
        outputs=tuple(Quantizer.parse(output) for output in outputs),
    )
