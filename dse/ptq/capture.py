"""The operands that layers read in the float network, kept whole."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dse.network import Filling, Layer, Network, Place
from formats.errors import InvalidValueError

BATCH = 128


class _Copier:
    """A filling that keeps a copy of every operand that passes."""

    def __init__(self, shape: tuple[int, ...], samples: int, batch: int) -> None:
        self.shape, self.left, self.batch = shape, samples, batch
        self.parts: list[NDArray[np.float32]] = []

    def __call__(self, operand: Tensor) -> Tensor:
        count = min(self.batch, self.left)
        self.left -= count
        # the order of the axes in memory depends on the operator that made it; what is kept does not
        self.parts.append(np.array(samples_first(operand.numpy(), self.shape, count), dtype=np.float32, order="C"))
        return operand


def operands(
    network: Network, names: Iterable[str], images: NDArray[np.float32], *, samples: int | None = None, batch: int = BATCH
) -> Mapping[str, NDArray[np.float32]]:
    """Return by layer name the activation operand that each layer reads in the float network, in one pass over ``images``.

    Arrays are float32 of shape (samples, …), as the layer reads them but for the samples, which come first. All of them are in
    memory at once: ``samples`` takes the first so many images alone, ``names`` a few layers at a time. Layers that read one tensor
    get the same array, read-only.
    Raises ``ValueError`` for a layer without a stored weight, for no images, and for an operand without an axis of samples.
    """
    layers = [stored(network.layer(name)) for name in names]
    given = images[:samples]
    if not len(given):
        raise InvalidValueError("images to look at operands on must be at least one, not none")
    copiers: dict[str, _Copier] = {}
    fillings: dict[tuple[str, Place], Filling] = {}
    for layer in layers:
        source = layer.operands["activation"].source
        if source not in copiers:
            copiers[source] = fillings[layer.name, "activation"] = _Copier(
                network.operand_shape(layer.name, "activation"), len(given), batch
            )
    with network.filled(fillings):
        network.logits(given, batch, workers=1)  # one after the other, so that samples stay in order
    joined = {source: np.concatenate(copier.parts) for source, copier in copiers.items()}
    for array in joined.values():
        array.setflags(write=False)
    found = {layer.name: joined[layer.operands["activation"].source] for layer in layers}
    return found


def samples_first(operand: NDArray[np.float32], shape: tuple[int, ...], samples: int) -> NDArray[np.float32]:
    """Return an operand of several samples with the samples along its first axis; ``shape`` is that of an operand of one sample.

    Attention may put tokens before samples, or fold heads into the samples' axis, sample by sample: then an axis of samples comes
    before all those of one sample. Raises ``ValueError`` where no axis is as many times as long as there are samples.
    """
    if operand.shape == (samples, *shape[1:]) and shape[0] == 1:
        return operand
    grown = [axis for axis, (size, one) in enumerate(zip(operand.shape, shape, strict=True)) if size == samples * one]
    others = [axis for axis in grown if operand.shape[:axis] + operand.shape[axis + 1 :] == shape[:axis] + shape[axis + 1 :]]
    if not others:
        raise InvalidValueError(f"operand must have an axis for the samples, not go from {shape} to {operand.shape} with {samples}")
    axis = others[0]
    apart = operand.reshape(*shape[:axis], samples, *shape[axis:])
    return np.moveaxis(apart, axis, 0)


def stored(layer: Layer) -> Layer:
    """Return the layer; refuse one without a stored weight."""
    if layer.weight is None:
        raise InvalidValueError(
            f"layer must have a stored weight to be prepared, not be a product of two activations (layer {layer.name!r})"
        )
    return layer
