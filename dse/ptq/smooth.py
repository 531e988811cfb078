"""Activation equalization: outliers of activation channels go into the weights that read them (SmoothQuant, arXiv 2211.10438)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dse.network import Network
from dse.ptq.equalize import channel_maxima
from dse.ptq.observe import Floats, maxima, observe
from dse.ptq.rewrite import Change, require, rewritten, stored_tensor
from dse.ptq.spaces import Reading, Space, spaces
from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Smooth:
    """Divide activation channel j by ``s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)`` and multiply what reads it (equation 4).

    X are the calibration samples at the layers that read the channel, W all the weights that do, as in the paper. The division is
    put into what writes the channel: a norm's scale and shift, or weights and biases behind operators that let it pass. The two
    factors of a product smooth each other, the one that is written last in the weight's place. Channels with a maximum of zero are
    left alone.
    """

    name: ClassVar[str] = "smooth"
    summary: ClassVar[str] = "outliers of activation channels moved into weights (SmoothQuant)"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        """Refuse an exponent that is no share."""
        if not 0 <= self.alpha <= 1:
            raise InvalidValueError(f"alpha of smooth must be from 0 to 1, not {self.alpha}")

    def apply(self, network: Network, images: NDArray[np.float32]) -> Network:
        """Return the network with smoother activations; ``images`` are what their maxima are taken over."""
        found = [space for space in spaces(network, "diagonal") if any(reading.sign > 0 for reading in space.readings)]
        require(found, network, self.name, "activations whose channels can be scaled where they are written and read")
        changes = []
        for space, observed in zip(found, observe(network, found, images, maxima), strict=True):
            peaks = [(reading, values.max(axis=0)) for reading, values in observed]
            changes.append(Change(space=space, map=1 / self._scales(network, space, peaks)))
        return rewritten(network, changes, images)

    def _scales(self, network: Network, space: Space, peaks: list[tuple[Reading, Floats]]) -> Floats:
        """Return s of every channel."""
        activations, read = _activation_peaks(space, peaks), _weight_peaks(network, space, peaks)
        alive = (activations > 0) & (read > 0)
        scales = np.ones(space.size)
        scales[alive] = activations[alive] ** self.alpha / read[alive] ** (1 - self.alpha)
        return scales


def _activation_peaks(space: Space, peaks: list[tuple[Reading, Floats]]) -> Floats:
    """Return the maxima of what layers with a stored weight read, or of a product's factor where there are none."""
    written = [(reading.layer, values) for reading, values in peaks if reading.sign > 0]
    read_by_weights = [values for layer, values in written if layer in space.readers]
    found: Floats = np.max(read_by_weights or [values for _, values in written], axis=0)
    return found


def _weight_peaks(network: Network, space: Space, peaks: list[tuple[Reading, Floats]]) -> Floats:
    """Return the maxima of the weights that read the channels, or of a product's factor that carries them inversely."""
    found = [values for reading, values in peaks if reading.sign < 0]
    if not found:
        for member in space.weights(-1):
            values = np.abs(stored_tensor(network, member.tensor).numpy()).astype(np.float64)
            found.append(channel_maxima(values, member.index, space.size))
    greatest: Floats = np.max(found or [np.zeros(space.size)], axis=0)
    return greatest
