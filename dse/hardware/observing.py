"""What the results of a network's operators are like on its calibration samples: how large, and of which shape."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from dse.network import Filling, Network, Place

#: samples that are looked at
SAMPLES = 128


class Observed(NamedTuple):
    """A node's result on several samples."""

    #: largest magnitude
    largest: float
    shape: tuple[int, ...]


class _Watching(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Observed] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.is_floating_point() and result.numel():
            self.found[n] = Observed(largest=float(result.abs().max()), shape=tuple(result.shape))
        return result


def observe(
    network: Network, fillings: Mapping[tuple[str, Place], Filling], images: NDArray[np.float32]
) -> Mapping[fx.Node, Observed]:
    """Return what every node's result is like under an assignment's fillings, for at least two samples."""
    watching = _Watching(network.graph_module)
    with torch.inference_mode(), network.filled(fillings):
        watching.run(torch.from_numpy(images[:SAMPLES] if len(images) > 1 else np.repeat(images, 2, axis=0)))
    return watching.found
