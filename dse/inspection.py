"""How much quantization takes away, layer by layer: signal-to-noise ratios, and the shares of zeros and of clipped values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.assignment import Assignment
from dse.batches import map_batches
from dse.network import Fillings, Layer, Network, Role, channels_last
from dse.quantize import ActivationQuantizer, Preparation, StoredWeight
from dse.sensitivity.interpreter import Runner, Values, all_values, layer_nodes, slot_nodes, slots
from formats.errors import InvalidValueError
from formats.quantizer import QuantizedTensor

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """The quantization error of one layer.

    ``…_sqnr`` are signal-to-quantization-noise ratios in dB, 10 log10(Σ x² / Σ (x̂ - x)²), infinite without any noise.
    ``weight`` compares the layer's weight (or the second factor of a product) with what is stored for it, ``activation`` what it
    reads with its quantized form. ``output`` is that of the layer by itself, its operands quantized and everything before it float;
    ``network`` is that of the same tensor in the network whose layers are all quantized. Zeros are the share of quantized values
    that are zero, clipped the share of values beyond the format's range at the scale; NaN where that has no meaning.
    """

    layer: str
    weight_sqnr: float
    activation_sqnr: float
    output_sqnr: float
    network_sqnr: float
    weight_zeros: float
    activation_zeros: float
    weight_clipped: float
    activation_clipped: float


#: headers of a table, by field
HEADERS = {
    "layer": "layer",
    "weight_sqnr": "weight SQNR [dB]",
    "activation_sqnr": "activation SQNR [dB]",
    "output_sqnr": "output SQNR, layer alone [dB]",
    "network_sqnr": "output SQNR in the network [dB]",
    "weight_zeros": "weight zeros [share]",
    "activation_zeros": "activation zeros [share]",
    "weight_clipped": "weight clipped [share]",
    "activation_clipped": "activation clipped [share]",
}


@dataclass
class _Sums:
    """Sums over batches of one layer: signal and noise of each tensor, zeros and clipped values, and how many values there were."""

    signal: dict[str, float]
    noise: dict[str, float]
    zeros: dict[str, float]
    clipped: dict[str, float]
    count: dict[str, int]

    @staticmethod
    def empty() -> "_Sums":
        return _Sums({}, {}, {}, {}, {})

    def add(self, name: str, exact: Tensor, quantized: Tensor) -> None:
        x, y = exact.double(), quantized.double()
        self.signal[name] = self.signal.get(name, 0.0) + float((x * x).sum())
        self.noise[name] = self.noise.get(name, 0.0) + float(((y - x) ** 2).sum())

    def count_values(self, role: Role, quantized: Tensor, clipped: float) -> None:
        self.zeros[role] = self.zeros.get(role, 0.0) + float((quantized == 0).sum())
        self.clipped[role] = self.clipped.get(role, 0.0) + clipped
        self.count[role] = self.count.get(role, 0) + quantized.numel()

    def merge(self, other: "_Sums") -> None:
        for item in fields(self):
            own: dict[str, float] = getattr(self, item.name)
            for name, value in getattr(other, item.name).items():
                own[name] = own.get(name, 0) + value

    def ratio(self, name: str) -> float:
        if self.noise[name] == 0:
            return float("inf")
        return 10 * float(np.log10(max(self.signal[name], 1e-300) / self.noise[name]))

    def share(self, found: Mapping[str, float], role: Role) -> float:
        return found[role] / self.count[role]


def inspect(preparation: Preparation, assignment: Assignment, images: NDArray[np.float32]) -> list[LayerError]:
    """Return the quantization error of every layer, in the network's order, over (N, …) float32 samples.

    The float network is the one that the assignment's network-wide steps leave.
    """
    if not len(images):
        raise InvalidValueError("samples to inspect must be at least one, not none")
    prepared = preparation.after(assignment.steps)
    fillings, network = prepared.fillings(assignment), prepared.network
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    sums = {layer.name: _Sums.empty() for layer in network.layers}
    for batch in map_batches(lambda part: _batch(network, fillings, part), parts):
        for name, found in batch.items():
            sums[name].merge(found)
    return [_error(layer, sums[layer.name]) for layer in network.layers]


def _batch(network: Network, fillings: Fillings, part: NDArray[np.float32]) -> dict[str, _Sums]:
    samples = channels_last(torch.from_numpy(part))
    exact, _ = all_values(network, samples)
    quantized = Runner(network, slots(network, fillings), keep=True)
    quantized.run(samples)
    nodes = layer_nodes(network)
    found = {}
    for layer in network.layers:
        sums = _operands(network, layer, fillings, exact)
        alone = Runner(network, slots(network, _own(fillings, layer.name)))
        sums.add("output", exact[nodes[layer.name]], _alone(alone, network, layer, exact))
        sums.add("network", exact[nodes[layer.name]], quantized.env[nodes[layer.name]])
        found[layer.name] = sums
    return found


def _own(fillings: Fillings, name: str) -> Fillings:
    return {key: filling for key, filling in fillings.items() if key[0] == name}


def _alone(runner: Runner, network: Network, layer: Layer, exact: Values) -> Tensor:
    """Run the layer's operator on quantized operands, with the float network's values for everything before its slots."""
    own = list(slot_nodes(network, (layer.name,)).values())
    runner.env = dict(exact)
    for node in own:
        runner.env[node] = runner.run_node(node)
    result: Tensor = runner.run_node(layer_nodes(network)[layer.name])
    return result


def _operands(network: Network, layer: Layer, fillings: Fillings, exact: Values) -> _Sums:
    sums, nodes = _Sums.empty(), slot_nodes(network, (layer.name,))
    roles: Sequence[Role] = ("weight", "activation")
    for role in roles:
        operand: Tensor = exact[nodes[layer.name, role]]
        filling = fillings[layer.name, role]
        values = filling(operand.clone())
        sums.add(role, operand, values)
        sums.count_values(role, values, _clipped(filling, operand))
    return sums


def _clipped(filling: object, operand: Tensor) -> float:
    """Return how many values lie beyond the range at their scale; NaN where codes have no such range."""
    if isinstance(filling, ActivationQuantizer):
        scaled = operand.numpy() / np.float32(filling.scale)
        return float(((scaled < filling.format.minimum) | (scaled > filling.format.maximum)).sum())
    if isinstance(filling, StoredWeight) and isinstance(filling.encoded, QuantizedTensor):
        quantizer = filling.encoded.quantizer
        scaled = quantizer.granularity.to_rows(np.ascontiguousarray(operand.numpy())) / filling.encoded.scales[:, np.newaxis]
        return float(((scaled < quantizer.format.minimum) | (scaled > quantizer.format.maximum)).sum())
    return float("nan")


def _error(layer: Layer, sums: _Sums) -> LayerError:
    return LayerError(
        layer=layer.name,
        **{f"{name}_sqnr": sums.ratio(name) for name in ("weight", "activation", "output", "network")},
        **{f"{role}_zeros": sums.share(sums.zeros, role) for role in ("weight", "activation")},
        **{f"{role}_clipped": sums.share(sums.clipped, role) for role in ("weight", "activation")},
    )


def table(errors: Sequence[LayerError], assignment: Assignment) -> pd.DataFrame:
    """Return one row for each layer: its quantizers and steps, and its errors."""
    rows = []
    for error in errors:
        chosen = assignment.layers[error.layer]
        named = {HEADERS[item.name]: getattr(error, item.name) for item in fields(error)}
        rows.append({"layer": error.layer, "weight": str(chosen.weight), "activation": str(chosen.activation),
                     "steps": "+".join(chosen.steps) or "none", **named})  # fmt: skip
    return pd.DataFrame(rows)
