"""What a layer computes, whatever the formats it computes in."""

import math
from dataclasses import dataclass
from typing import Literal

from formats.errors import InvalidValueError


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Shape of a convolution over one to three axes, the slowest first; every tuple has one entry for each axis."""

    input_channels: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    #: zeros put before and after each axis
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse sizes that do not follow from each other."""
        parts = (self.stride, self.padding, self.dilation, self.input_size, self.output_size)
        if not 1 <= len(self.kernel) <= 3 or any(len(part) != len(self.kernel) for part in parts):
            raise InvalidValueError(f"a convolution must have one to three axes, the same for all its sizes, not {self}")
        if self.groups < 1 or self.input_channels % self.groups:
            raise InvalidValueError(f"groups must divide the {self.input_channels} input channels, not be {self.groups}")
        for size, kernel, stride, dilation, out in zip(
            self.padded_size, self.kernel, self.stride, self.dilation, self.output_size, strict=True
        ):
            expected = (size - dilation * (kernel - 1) - 1) // stride + 1
            if out != expected:
                raise InvalidValueError(f"output size of a convolution must be {expected} here, not {out}")

    @property
    def padded_size(self) -> tuple[int, ...]:
        """Size of the input with its padding."""
        return tuple(size + before + after for size, (before, after) in zip(self.input_size, self.padding, strict=True))

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return self.padded_size != self.input_size

    @property
    def depthwise(self) -> bool:
        """Whether every input channel has kernels of its own."""
        return self.groups == self.input_channels > 1

    @property
    def pointwise(self) -> bool:
        """Whether the rows of the matrix product are the pixels themselves, so that no window slides."""
        return math.prod(self.kernel) == 1 and math.prod(self.stride) == 1 and not self.padded


@dataclass(frozen=True, kw_only=True)
class LayerWorkload:
    """Counts for one layer and one sample.

    Every layer is a product of ``vectors`` rows with a matrix of ``dot_length`` rows and ``output_channels`` columns: the output
    positions of a convolution, the leading axes of a linear layer's input, the rows of all the products of a batched one.
    """

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
    #: second operands of a product, such as the heads of attention
    matrices: int = 1
    #: shape of a convolution; None for all else, and where only the counts are known
    convolution: Convolution | None = None

    def __post_init__(self) -> None:
        """Refuse counts that contradict each other."""
        if self.activations_out % self.output_channels or self.vectors % self.matrices:
            raise self._contradiction("outputs", f"a multiple of {self.output_channels * self.matrices}", self.activations_out)
        if self.macs != self.activations_out * self.dot_length:
            raise self._contradiction("MACs", str(self.activations_out * self.dot_length), self.macs)
        if self.weights not in (0, self.output_channels * self.dot_length):
            raise self._contradiction("weights", f"0 or {self.output_channels * self.dot_length}", self.weights)
        shape = self.convolution
        if shape is not None:
            if shape.input_channels // shape.groups * math.prod(shape.kernel) != self.dot_length:
                raise self._contradiction("products for an output", "those of its kernel", self.dot_length)
            if math.prod(shape.output_size) != self.vectors:
                raise self._contradiction("output positions", str(math.prod(shape.output_size)), self.vectors)
            if self.output_channels % shape.groups:
                raise self._contradiction("output channels", f"a multiple of {shape.groups} groups", self.output_channels)

    def _contradiction(self, what: str, expected: str, given: int) -> InvalidValueError:
        return InvalidValueError(f"{what} of a layer must be {expected} here, not {given} (layer {self.name!r})")

    @property
    def vectors(self) -> int:
        """Rows of the matrix product for one sample."""
        return self.activations_out // self.output_channels

    @property
    def operand_elements(self) -> int:
        """Elements of the second operand: stored weights, or the matrices of a product."""
        return self.weights or self.matrices * self.dot_length * self.output_channels
