"""The step in which a layer multiplies and sums: codes to the accumulator's content, as wide or as narrow as that is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.hardware.steps import Numbers
from formats import Accumulator, Format, convolve2d, matmul
from formats.arithmetic.products import FINITE, levels
from formats.errors import InvalidValueError

#: floating-point types in which sums of whole numbers are exact below these
_EXACT = ((torch.float32, 2**24), (torch.float64, 2**53))
#: what stands for the square root of two where even and odd sums are joined, as hardware has it: 181 / 128, in four additions
ROOT, ROOT_UNIT = 181, 128

Kind = Literal["convolution", "linear", "product"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Operand:
    """How a layer reads codes: as whole numbers of the format's LSB, those with a factor of the square root of two apart."""

    format: Format

    @cached_property
    def tables(self) -> tuple[Numbers, Numbers]:
        """Numbers by code without and with the factor, int64 of shape (codes,), zero for codes that stand for nothing."""
        known = levels(self.format)
        largest = int(np.where(known.significand == 0, 0, known.shift).max())
        if largest > 62 - 31:
            raise InvalidValueError(f"values of {self.format.name} must span 31 places to be summed in 64 bits, not {largest}")
        numbers = known.significand.astype(np.int64) << known.shift
        numbers = np.where(known.status == FINITE, numbers, 0)[:-1]
        root = known.root[:-1]
        return np.where(root, 0, numbers), np.where(root, numbers, 0)

    @cached_property
    def plain(self) -> bool:
        """Whether the levels are whole numbers in a row: then a computed operand is carried as its numbers, not as codes."""
        form = self.format.closed_form
        return form is not None and form.kind == "uniform"

    def codes_of(self, carried: Tensor) -> NDArray[np.int64]:
        """Return the codes of a computed operand as it is carried."""
        if not self.plain:
            return carried.numpy()
        even, _ = self.tables
        usable = [code for code in range(len(even)) if code not in self.format.unused]
        first = int(even[usable].min())
        by_number = np.zeros(int(even[usable].max()) - first + 1, np.int64)
        by_number[even[usable] - first] = usable
        found: NDArray[np.int64] = by_number[carried.numpy() - first]
        return found

    @property
    def has_root(self) -> bool:
        """Whether some number has the factor."""
        return bool(self.tables[1].any())

    @property
    def largest(self) -> int:
        """Largest magnitude."""
        return int(max(np.abs(table).max() for table in self.tables))

    def parts(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the numbers of codes, int64, without and with the factor."""
        even, odd = (torch.from_numpy(table) for table in self.tables)
        return even[codes], odd[codes] if self.has_root else None

    def carried_parts(self, carried: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the same of a computed operand as it is carried."""
        return (carried, None) if self.plain else self.parts(carried)


@dataclass(frozen=True, kw_only=True, eq=False)
class Accumulate:
    """Products of codes, summed in order and added to the bias; a layer without stored weight multiplies its two operands.

    The sum of formats in powers of the square root of two is ``128 * even + 181 * odd``, in units of a 128th of the LSB.
    """

    layer: str
    kind: Kind
    activation: Operand
    weight: Operand
    accumulator: Accumulator
    #: codes in the weight's shape, output channels first; None for a product
    codes: NDArray[np.int64] | None
    #: in LSBs, (output channels,)
    bias: Numbers | None
    #: stride, padding, dilation, each by axis
    geometry: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = ((), (), ())
    groups: int = 1
    #: no sum, of products and bias, is larger in magnitude
    bound: int

    @property
    def joined(self) -> bool:
        """Whether there are two sums, which are joined."""
        return self.activation.has_root or self.weight.has_root

    def bounded(self, depth: int) -> "Accumulate":
        """Return the same with its bound, from the weights or, of a product, from the number of terms in a sum."""
        factor = (2 if self.joined else 1) * self.activation.largest
        if self.codes is None:
            return replace(self, bound=factor * depth * self.weight.largest)
        even, odd = (np.abs(table[self.codes]) for table in self.weight.tables)
        magnitudes = even + odd
        bias = 0 if self.bias is None else int(np.abs(self.bias).max(initial=0))
        bound = factor * int(magnitudes.reshape(len(self.codes), -1).sum(axis=1).max()) + bias
        if bound >= _EXACT[-1][1]:
            limit = f"fit {_EXACT[-1][1].bit_length()} bits"
            raise InvalidValueError(f"exact sums must {limit}, not need {bound.bit_length() + 1} (layer {self.layer!r})")
        made = replace(self, bound=bound)
        if made.overflows and self.accumulator.overflow == "saturate" and len(self.geometry[0]) not in (0, 2):
            nearest = f"fixed:{bound.bit_length() + 1}, which nothing overflows, or {self.accumulator}:wrap"
            what = "of a convolution over other than two axes"
            raise InvalidValueError(
                f"accumulator {what} must not saturate, not be {self.accumulator}; nearest: {nearest} (layer {self.layer!r})"
            )
        return made

    @property
    def reach(self) -> int:
        """Largest magnitude of a result."""
        bits = self.accumulator.bits
        largest = self.bound if bits is None else min(self.bound, 1 << (bits - 1))
        return largest * (ROOT_UNIT + ROOT if self.joined else 1)

    @property
    def overflows(self) -> bool:
        """Whether some sum may be too large for the register."""
        return self.accumulator.bits is not None and self.bound >= 1 << (self.accumulator.bits - 1)

    @property
    def units(self) -> int:
        """What one LSB of the products counts in the result."""
        return ROOT_UNIT if self.joined else 1

    def run(self, *operands: Tensor) -> Tensor:
        """Return the content of the accumulators, int64."""
        if self.overflows and self.accumulator.overflow == "saturate":
            return self._saturated(operands)
        a_even, a_odd = self.activation.carried_parts(operands[0])
        w_even, w_odd = self._weight if self.codes is not None else self.weight.carried_parts(operands[1])
        even = self._sums(a_even, w_even)
        odd = None
        if a_odd is not None and w_odd is not None:
            even = even + 2 * self._sums(a_odd, w_odd)
        if a_odd is not None:
            odd = self._sums(a_odd, w_even)
        if w_odd is not None:
            odd = self._sums(a_even, w_odd) + (0 if odd is None else odd)
        return self._joined(self._wrapped(self._with_bias(even)), None if odd is None else self._wrapped(odd))

    @cached_property
    def _weight(self) -> tuple[Tensor, Tensor | None]:
        assert self.codes is not None
        return self.weight.parts(torch.from_numpy(self.codes))

    def _joined(self, even: Tensor, odd: Tensor | None) -> Tensor:
        return even if odd is None else ROOT_UNIT * even + ROOT * odd

    def _with_bias(self, sums: Tensor) -> Tensor:
        if self.bias is None:
            return sums
        bias = torch.from_numpy(self.bias)
        return sums + (bias.reshape(-1, *[1] * len(self.geometry[0])) if self.kind == "convolution" else bias)

    def _wrapped(self, sums: Tensor) -> Tensor:
        if not self.overflows:
            return sums
        assert self.accumulator.bits is not None
        half = 1 << (self.accumulator.bits - 1)
        return ((sums + half) & (2 * half - 1)) - half

    def _sums(self, a: Tensor, w: Tensor) -> Tensor:
        """Sum products in a floating-point type in which nothing is rounded."""
        dtype = next(dtype for dtype, limit in _EXACT if self.bound < limit)
        return self._multiply(a.to(dtype), w.to(dtype)).to(torch.int64)

    def _multiply(self, a: Tensor, w: Tensor) -> Tensor:
        if self.kind == "convolution":
            functional = torch.nn.functional
            convolve: Callable[..., Tensor] = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.geometry[0]) - 1]
            return convolve(a, w, None, *self.geometry, self.groups)
        return torch.nn.functional.linear(a, w) if self.kind == "linear" else a @ w

    def _saturated(self, operands: tuple[Tensor, ...]) -> Tensor:
        """Sum in order in registers that saturate, by the emulator's own dot products."""
        pair = self.activation.format, self.weight.format
        a = self.activation.codes_of(operands[0])
        if self.kind == "convolution":
            stride, padding, dilation = self.geometry
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": self.groups}
            content: Any = convolve2d(a, pair[0], self.codes, pair[1], self.accumulator, **options).to_integers()  # type: ignore[arg-type]
        else:
            content = self._saturated_product(a, operands)
        even, odd = content if isinstance(content, tuple) else (content, None)
        limits = -(1 << (int(self.accumulator.bits or 0) - 1)), (1 << (int(self.accumulator.bits or 0) - 1)) - 1
        summed = self._with_bias(torch.from_numpy(np.asarray(even, np.int64))).clamp(*limits)
        return self._joined(summed, None if odd is None else torch.from_numpy(np.asarray(odd, np.int64)))

    def _saturated_product(self, a: NDArray[np.int64], operands: tuple[Tensor, ...]) -> Any:
        pair = self.activation.format, self.weight.format

        def product(x: NDArray[np.int64], y: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
            found = matmul(x, pair[0], y, pair[1], self.accumulator).to_integers()
            return found if isinstance(found, tuple) else (found,)

        if self.codes is not None:
            flat = product(a.reshape(-1, a.shape[-1]), np.ascontiguousarray(self.codes.T))
            made = tuple(part.reshape(*a.shape[:-1], -1) for part in flat)
        else:
            other = self.weight.codes_of(operands[1])
            lead = np.broadcast_shapes(a.shape[:-2], other.shape[:-2])
            pairs = zip(
                np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(-1, *a.shape[-2:]),
                np.broadcast_to(other, (*lead, *other.shape[-2:])).reshape(-1, *other.shape[-2:]),
                strict=True,
            )
            stacked = [product(x, y) for x, y in pairs]
            made = tuple(np.stack(part).reshape(*lead, a.shape[-2], other.shape[-1]) for part in zip(*stacked, strict=True))
        return made if len(made) == 2 else made[0]
