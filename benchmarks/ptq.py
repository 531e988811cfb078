"""Post-training steps of this project against Brevitas' own through the bridge, on the layers of the networks that are shipped.

One line for each network and weight quantizer. A figure is the mean squared output error of a layer on its calibration operand in
units of that of rounding to the nearest, as a geometric mean over the layers; in brackets the same on the validation split; then
the seconds for all layers. Both sides begin at the same scales, absmax ones. Groups go along a layer's flattened weights here and
along its input channels in Brevitas: they are compared where the two are the same, on linear layers. "bias" is the share of the
mean output error that is left.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dse.models import loading
from dse.network import build
from dse.ptq.bias_correction import CorrectBias
from dse.ptq.blocks import nodes_by_layer
from dse.ptq.capture import operands
from dse.ptq.flexround import FlexRound
from dse.ptq.gptq import Gptq
from dse.ptq.moments import Moments, moments
from dse.ptq.rounding import Round
from dse.ptq.step import LayerData, PreparedWeight
from formats import Quantizer, brevitas_bridge

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    from brevitas.core.function_wrapper.learned_round import LearnedRoundSte
    from brevitas.graph.calibrate import bias_correction_mode
    from brevitas.graph.gptq import gptq_mode
    from brevitas.inject.enum import LearnedRoundImplType
    from brevitas_examples.common.learned_round.learned_round_method import (
        RoundRegularisationLoss,
        insert_learned_round_quantizers,
    )

COMMAND = "python -m benchmarks.ptq"
MODELS = ("resnet8", "mobilenet", "vit")
QUANTIZERS = ("int4:channel", "e2m1:channel", "post4:channel", "int4:group16", "e2m1:group16", "post4:group16")
LEARNING_STEPS, LEARNING_BATCH = 1000, 32

Weights = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One layer with what it is measured on."""

    data: LayerData
    validation: Moments
    prepared: PreparedWeight
    quantizer: Quantizer


def cases(model: str, data: str, text: str) -> list[Case]:
    subject = loading.load(model, data)
    network = build(model, subject.module, subject.dataset.sample_shape)
    quantizer = Quantizer.parse(f"{text}:absmax")
    assert isinstance(quantizer, Quantizer)
    layers = [layer for layer in network.layers if layer.weight is not None]
    if quantizer.granularity.name == "group":
        layers = [layer for layer in layers if layer.kind == "linear"]
    names = [layer.name for layer in layers]
    calibration = operands(network, names, subject.dataset.calibration.images)
    validation = operands(network, names, subject.dataset.validation.images)
    nodes = nodes_by_layer(network)
    found = []
    for layer in layers:
        assert layer.weight is not None
        bias = np.zeros(len(layer.weight), np.float32)
        given = LayerData(layer=layer, node=nodes[layer.name], bias=bias, inputs=calibration[layer.name])
        held_out = moments(replace(given, inputs=validation[layer.name]))
        moments(given)
        prepared = PreparedWeight(encoded=quantizer.encode(layer.weight))
        found.append(Case(data=given, validation=held_out, prepared=prepared, quantizer=quantizer))
    return found


def brevitas_layer(case: Case) -> Any:
    """Return the layer in Brevitas, quantized through the bridge with scales of its own."""
    layer, weight = case.data.layer, torch.tensor(case.data.weight)
    chosen = brevitas_bridge.weight_quantizer(case.quantizer.format_name, granularity=str(case.quantizer.granularity))
    if layer.workload.convolution is None:
        made: Any = qnn.QuantLinear(weight.shape[1], len(weight), bias=True, weight_quant=chosen)
    else:
        shape = layer.workload.convolution
        made = qnn.QuantConv2d(
            shape.input_channels, len(weight), shape.kernel, stride=shape.stride,
            padding=tuple(before for before, _ in shape.padding), dilation=shape.dilation,
            groups=shape.groups, bias=True, weight_quant=chosen,
        )  # fmt: skip
    made.weight.data, made.bias.data = weight.clone(), torch.zeros(len(weight))
    module = nn.Sequential(made).eval()
    with torch.no_grad():
        module(inputs(case)[:1])  # which sets the scales
    return module


def inputs(case: Case) -> torch.Tensor:
    return torch.tensor(case.data.inputs)


def values(module: Any) -> Weights:
    with torch.no_grad():
        found = module[0].quant_weight()
    return np.asarray(getattr(found, "value", found).numpy(), np.float32)


def brevitas_gptq(case: Case, act_order: bool) -> Weights:
    module = brevitas_layer(case)
    with torch.no_grad(), gptq_mode(module, act_order=act_order) as gptq:
        gptq.model(inputs(case))
        gptq.update()
    return values(module)


def brevitas_learned_round(case: Case) -> Weights:
    """Learn as Brevitas' own trainer does for one layer: its parametrisation, its start, its regulariser; Adam by mini-batches."""
    module, x = brevitas_layer(case), inputs(case)
    with torch.no_grad():
        insert_learned_round_quantizers(module, LearnedRoundImplType.HARD_SIGMOID)
        wanted = float_output(case, module)
    (rounding,) = [part for part in module.modules() if isinstance(part, LearnedRoundSte)]
    usable = torch.isfinite(rounding.value.data)
    rounding.value.data = torch.where(usable, rounding.value.data, torch.zeros(()))
    regulariser = RoundRegularisationLoss(module[0], weight=0.01, max_count=LEARNING_STEPS)
    optimizer = torch.optim.Adam([rounding.value], lr=0.01)
    draws = np.random.default_rng(0)
    rounding.train()
    for _ in range(LEARNING_STEPS):
        chosen = torch.from_numpy(draws.integers(0, len(x), LEARNING_BATCH))
        found = module(x[chosen])
        axis = -1 if case.data.layer.kind == "linear" else 1
        loss = (found - wanted[chosen]).square().sum(axis).mean() + regulariser(found, wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rounding.eval()
    return values(module)


def float_output(case: Case, module: Any) -> torch.Tensor:
    layer, x = module[0], inputs(case)
    if case.data.layer.kind == "linear":
        return nn.functional.linear(x, layer.weight)
    return nn.functional.conv2d(x, layer.weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)


def brevitas_bias(case: Case) -> Weights:
    """Return the correction of the bias."""
    module = brevitas_layer(case)
    with torch.no_grad(), bias_correction_mode(module):
        module(inputs(case))
    return np.asarray(module[0].bias.detach().numpy())


def own(step: Any) -> Callable[[Case], Weights]:
    return lambda case: step.apply(case.data, case.quantizer, case.prepared).encoded.decode()


ROUNDINGS: Mapping[str, Callable[[Case], Weights]] = {
    "gptq": own(Gptq(act_order=False)),
    "Brevitas": lambda case: brevitas_gptq(case, False),
    "gptq act-order": own(Gptq()),
    "Brevitas ": lambda case: brevitas_gptq(case, True),
    "round": own(Round()),
    "Brevitas  ": brevitas_learned_round,
    "flexround": own(FlexRound()),
}
BIASES: Mapping[str, Callable[[Case], Weights]] = {
    "bias": lambda case: np.asarray(CorrectBias().apply(case.data, case.quantizer, case.prepared).bias_shift),
    "Brevitas bias": brevitas_bias,
}


#: from what was found to its figures on the calibration and the validation operand
Measure = Callable[[Case, Weights], tuple[float, float]]


def errors(case: Case, weight: Weights) -> tuple[float, float]:
    """Return the output error on the calibration and the validation operand in units of rounding to the nearest."""
    nearest, error = case.prepared.encoded.decode() - case.data.weight, weight - case.data.weight
    return tuple(m.squared_errors(error).sum() / m.squared_errors(nearest).sum() for m in (moments(case.data), case.validation))  # type: ignore[return-value]


def biases(case: Case, shift: Weights) -> tuple[float, float]:
    """Return the share of the mean output error that is left, on both operands."""
    nearest = case.prepared.encoded.decode() - case.data.weight
    means = [m.mean_errors(nearest) for m in (moments(case.data), case.validation)]
    return tuple(float(np.abs(mean + shift).sum() / np.abs(mean).sum()) for mean in means)  # type: ignore[return-value]


def line(name: str, given: list[Case], run: Callable[[Case], Weights], measure: Measure) -> str:
    began = time.perf_counter()
    try:
        found = [run(case) for case in given]
    except Exception as failure:  # a rival's own limits are a result
        return f"{name.strip()}: fails ({type(failure).__name__}: {str(failure).splitlines()[0][:60]})"
    seconds = time.perf_counter() - began
    measured = np.maximum([measure(case, weight) for case, weight in zip(given, found, strict=True)], 1e-12)
    mean, held_out = np.exp(np.log(measured).mean(axis=0))
    return f"{name.strip()} {mean:.3g} ({held_out:.3g}) {seconds:.2f} s"


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--quantizers", default=",".join(QUANTIZERS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for model in options.models.split(","):
        for text in options.quantizers.split(","):
            given = cases(model, options.data, text)
            if not given:
                continue
            print(f"{model} {options.data} {text} ({len(given)} layers)", flush=True)
            for name, run in ROUNDINGS.items():
                print("  " + line(name, given, run, errors), flush=True)
            for name, run in BIASES.items():
                print("  " + line(name, given, run, biases), flush=True)


if __name__ == "__main__":
    main()
