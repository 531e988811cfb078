"""What quantizing costs a trial: quantized over float forward pass of resnet8 on Fashion-MNIST, ours and Brevitas'.

All three run the same traced network over the same samples at batch 256, batches spread over the same threads; the quantized
ones have the same assignment. Weights: ours are quantized once and kept, as in a search; Brevitas quantizes them at every
forward pass, and in a second row its quantized weights are kept for it.
"""

import argparse
import os

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.timing import interleaved, ratio
from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment, prepare
from dse.models import loading
from dse.network import Filling, Layer, Role
from formats import Quantizer

COMMAND = "python -m benchmarks.trial"


def brevitas_activation(quantizer: Quantizer, scale: float) -> nn.Module:
    """Return Brevitas' fake quantizer with the format and the scale of ours."""
    from brevitas.nn import QuantIdentity
    from brevitas.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat

    fmt = quantizer.format
    base = Int8ActPerTensorFloat if fmt.signed else Uint8ActPerTensorFloat
    return QuantIdentity(  # type: ignore[no-any-return]
        act_quant=base, bit_width=fmt.bits, scaling_impl_type="const", scaling_init=scale * fmt.maximum, return_quant_tensor=False
    ).eval()


def brevitas_weight(layer: Layer, quantizer: Quantizer) -> nn.Module:
    """Return a Brevitas layer whose ``quant_weight`` quantizes the layer's weight by channel."""
    import torch
    from brevitas.nn import QuantConv2d, QuantLinear
    from brevitas.quant import Int8WeightPerChannelFloat

    assert layer.weight is not None
    shape = layer.weight.shape
    options = {"bias": False, "weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": quantizer.format.bits}
    made = QuantConv2d(shape[1], shape[0], shape[2:], **options) if len(shape) == 4 else QuantLinear(shape[1], shape[0], **options)
    made.weight.data = torch.from_numpy(layer.weight.copy())
    return made.eval()  # type: ignore[no-any-return]


def brevitas_fillings(experiment: Experiment, assignment: Assignment, *, keep_weights: bool) -> dict[tuple[str, Role], Filling]:
    """Return Brevitas quantizers for every slot."""
    fillings: dict[tuple[str, Role], Filling] = {}
    for layer in experiment.preparation.network.layers:
        chosen = assignment.layers[layer.name]
        ours = experiment.preparation.filling(layer, "activation", chosen.activation)
        fillings[layer.name, "activation"] = brevitas_activation(chosen.activation, ours.scale)  # type: ignore[attr-defined]
        quantized = brevitas_weight(layer, chosen.weight)
        kept = quantized.quant_weight().value.detach()
        fillings[layer.name, "weight"] = _constant(kept) if keep_weights else _at_every_pass(quantized)
    return fillings


def _constant(value: Tensor) -> Filling:
    return lambda operand: value


def _at_every_pass(quantized: nn.Module) -> Filling:
    return lambda operand: quantized.quant_weight().value


def measure(samples: int, rounds: int, workers: int) -> None:
    """Print the ratios for one number of threads."""
    experiment = prepare(loading.load("resnet8", "fashion-mnist"))
    network, preparation = experiment.preparation.network, experiment.preparation
    images = experiment.split("validation").images[:samples]
    mixed = preparation.uniform(
        "resnet8", "fashion-mnist", parse_quantizer("int4", "weight"), parse_quantizer("int8", "activation")
    )

    def forward(fillings: dict[tuple[str, Role], Filling]) -> NDArray[np.float32]:
        with network.filled(fillings):
            return network.logits(images, workers=workers)

    candidates = {
        "float": {},
        "bitatlas": preparation.fillings(mixed),
        "brevitas": brevitas_fillings(experiment, mixed, keep_weights=False),
        "brevitas, weights kept": brevitas_fillings(experiment, mixed, keep_weights=True),
    }
    seconds = interleaved({name: lambda f=f: forward(f) for name, f in candidates.items()}, rounds)  # type: ignore[misc]
    print(f"resnet8 / fashion-mnist, {samples} samples, batch 256, {workers} thread(s), weights INT4, activations INT8")
    for name in candidates:
        low, middle, high = ratio(seconds, name, "float")
        print(
            f"  {name:24} {np.median(seconds[name]):7.3f} s   {middle:5.2f} x float  ({low:.2f} … {high:.2f} over {rounds} rounds)"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    for workers in sorted({1, len(os.sched_getaffinity(0))}):
        measure(options.samples, options.rounds, workers)


if __name__ == "__main__":
    main()
