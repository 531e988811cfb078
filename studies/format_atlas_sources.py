"""What the atlas is measured on: samples of three densities, and the weights and activations of the zoo's networks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dse import network
from dse.data import Dataset
from dse.models import loading
from dse.network import Layer, Network, Role
from formats.errors import BitatlasError

Floats = NDArray[np.float64]

#: degrees of freedom of the Student-t density
STUDENT_T_FREEDOM = 5
GAUSSIAN, LAPLACE, STUDENT_T = "N(0, 1)", "Laplace", f"Student-t, {STUDENT_T_FREEDOM} degrees of freedom"
WEIGHTS, SIGNED, NEVER_NEGATIVE, SOFTMAX = "weights", "activations, signed", "activations, never negative", "softmax outputs"
#: of the zoo, in the order of the report
ZOO = (WEIGHTS, SIGNED, NEVER_NEGATIVE, SOFTMAX)


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """One tensor, float32 of shape (R, n), the axis that a layer sums over last: blocks run along it."""

    source: str
    name: str
    rows: NDArray[np.float32]

    @property
    def never_negative(self) -> bool:
        """Whether an unsigned format loses nothing."""
        return bool(self.rows.min() >= 0)


def synthetic(count: int) -> Iterator[Values]:
    """Return ``count`` numbers of each density: one from every 1 / ``count`` of its probability, in random order.

    That is a stratified sample (Cochran, "Sampling Techniques", chapter 5): as a whole it follows the density far more closely
    than independent numbers do, while neighbours, which share a block, are all but independent. Each has a seed of its own.
    """
    for seed, (source, quantile) in enumerate(((GAUSSIAN, _normal), (LAPLACE, _laplace), (STUDENT_T, student_t_quantile)), 1):
        generator = np.random.default_rng(seed)
        probability = (generator.permutation(count) + generator.random(count)) / count
        yield Values(source=source, name=source, rows=quantile(probability).astype(np.float32)[np.newaxis])


def _normal(probability: Floats) -> Floats:
    found: Floats = np.asarray(torch.special.ndtri(torch.from_numpy(probability)))
    return found


def _laplace(probability: Floats) -> Floats:
    found: Floats = np.sign(probability - 0.5) * -np.log(2 * np.minimum(probability, 1 - probability))
    return found


def student_t_quantile(probability: Floats) -> Floats:
    """Return the quantiles of Student-t with five degrees of freedom.

    With t = sqrt(5) cot(a) the probability above t is (a - sin(a) cos(a) (1 + 2/3 sin(a)**2)) / pi (Abramowitz and Stegun,
    26.7.3), convex in a on (0, pi / 2], so that Newton's method finds a from the first term of its series, 8 a**5 / (15 pi).
    """
    tail = np.minimum(probability, 1 - probability)
    angle = (15 * np.pi / 8 * tail) ** 0.2
    for _ in range(12):
        sine = np.sin(angle)
        above = (angle - sine * np.cos(angle) * (1 + 2 / 3 * sine**2)) / np.pi
        angle = np.minimum(angle - (above - tail) / (8 / (3 * np.pi) * sine**4), np.pi / 2)
    found: Floats = np.sign(probability - 0.5) * np.sqrt(STUDENT_T_FREEDOM) / np.tan(angle)
    return found


def of_zoo(models: tuple[str, ...], data_names: tuple[str, ...], images: int) -> Iterator[Values]:
    """Return the weights and activations of all quantizable layers, network by network; activations of ``images`` images."""
    for data_name in data_names:
        for model in models:
            subject = loading.load(model, data_name)
            net = network.build(model, subject.module, subject.dataset.sample_shape)
            label = f"{model}-{data_name}"
            yield from _weights(net, label)
            yield from _activations(net, label, subject.dataset, images)


def _weights(net: Network, label: str) -> Iterator[Values]:
    for layer in net.layers:
        if layer.weight is not None:
            rows = layer.weight.reshape(len(layer.weight), -1)
            yield _checked(WEIGHTS, f"{label} {layer.name}", rows)


class _Recorder:
    """A filling that keeps the operand and passes it on."""

    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def __call__(self, operand: torch.Tensor) -> torch.Tensor:
        self.parts.append(operand.detach().clone())
        return operand


def _activations(net: Network, label: str, dataset: Dataset, images: int) -> Iterator[Values]:
    """Return every computed operand once, but the image: whole numbers of steps, which integers hold without any error."""
    image = net.layers[0].operands["activation"].source
    recorders: dict[tuple[str, Role], _Recorder] = {}
    readers: dict[str, tuple[Layer, Role]] = {}
    for layer in net.layers:
        for role, operand in layer.operands.items():
            if operand.source not in (*readers, image):
                readers[operand.source], recorders[layer.name, role] = (layer, role), _Recorder()
    with net.filled(recorders):
        net.logits(dataset.calibration.images[:images], images, workers=1)
    for source, (layer, role) in readers.items():
        values = torch.cat(recorders[layer.name, role].parts).numpy()
        summed = np.moveaxis(values, _summed_axis(layer, role), -1)
        kind = SOFTMAX if source.startswith("softmax") else NEVER_NEGATIVE if values.min() >= 0 else SIGNED
        yield _checked(kind, f"{label} {layer.name} {role}", summed.reshape(-1, summed.shape[-1]))


def _summed_axis(layer: Layer, role: Role) -> int:
    if layer.kind == "convolution":
        return 1
    return -2 if layer.kind == "product" and role == "weight" else -1


def _checked(source: str, name: str, rows: NDArray[np.float32]) -> Values:
    if not rows.any():
        raise BitatlasError(f"values of a tensor must not all be zero: they have no signal-to-noise ratio ({name})")
    return Values(source=source, name=name, rows=np.ascontiguousarray(rows))
