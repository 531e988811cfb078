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

    def __init__(self) -> None:
        self.parts: list[NDArray[np.float32]] = []

    def __call__(self, operand: Tensor) -> Tensor:
        # the order of the axes in memory depends on the operator that made it; what is kept does not
        self.parts.append(np.array(operand.numpy(), dtype=np.float32, order="C"))
        return operand


def operands(
    network: Network, names: Iterable[str], images: NDArray[np.float32], *, samples: int | None = None, batch: int = BATCH
) -> Mapping[str, NDArray[np.float32]]:
    """Return by layer name the activation operand that each layer reads in the float network, in one pass over ``images``.

    Arrays are float32 of shape (samples, …), as the layer reads them, and all of them are in memory at once: ``samples`` takes
    the first so many images alone, ``names`` a few layers at a time. Layers that read one tensor get the same array, read-only.
    Raises ``ValueError`` for a layer without a stored weight, for no images, and for an operand whose first axis is not the
    samples'.
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
            copiers[source] = fillings[layer.name, "activation"] = _Copier()
    with network.filled(fillings):
        network.logits(given, batch, workers=1)  # one after the other, so that samples stay in order
    joined = {source: np.concatenate(copier.parts) for source, copier in copiers.items()}
    for array in joined.values():
        array.setflags(write=False)
    found = {layer.name: joined[layer.operands["activation"].source] for layer in layers}
    for name, array in found.items():
        if len(array) != len(given):
            raise InvalidValueError(
                f"operand must have the samples along its first axis, {len(given)}, not {len(array)} (layer {name!r})"
            )
    return found


def stored(layer: Layer) -> Layer:
    """Return the layer; refuse one without a stored weight."""
    if layer.weight is None:
        raise InvalidValueError(
            f"layer must have a stored weight to be prepared, not be a product of two activations (layer {layer.name!r})"
        )
    return layer
