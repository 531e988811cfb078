"""What a layer computes, whatever the formats it computes in."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LayerWorkload:
    """Counts for one layer and one sample."""

    name: str
    kind: Literal["convolution", "linear", "product"]
    #: multiply-accumulate operations
    macs: int
    #: stored weights; 0 for a product of two activations
    weights: int
    #: output channels; columns of a product
    output_channels: int
    #: elements read and written
    activations_in: int
    activations_out: int
    #: products that are summed to one output
    dot_length: int
