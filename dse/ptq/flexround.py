"""FlexRound: rounding learned by dividing weights before they are rounded.

Lee et al., arXiv 2306.00317: ``W^ = s1 Q(W / (s1 S2 s3 s4))`` with a scale s1, a divisor for every weight (S2), output channel (s3)
and input channel (s4), all above zero and learned through the straight-through estimator; unlike in AdaRound, a weight may move by
more than one level. Q is the nearest level of any format here; its gradient is 1 within the range of the levels, else 0.

Conventions here: divisors are learned as logarithms, from 0 on. Where scales are stored as float32, s1 is learned too, else it
stays as it is. The error is that of the layer's output over all calibration samples, each output channel's divided by that of the
codes that came (see ``dse.ptq.rounding``). Of all steps each output channel keeps the codes, and its scales, that err least, the
ones that came included; where output channels share scales, the layer does so as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.ptq.aim import Aim, aim
from dse.ptq.alone import alone
from dse.ptq.grid import Grid, grid
from dse.ptq.rounding import check_learning
from dse.ptq.step import LayerData, PreparedWeight
from formats.codec import Codes
from formats.methods.fitted import FittedTensor
from formats.quantizer import QuantizedTensor
from formats.scale_storage import FLOAT32, LARGEST_SCALE, SMALLEST_SCALE
from formats.tensor_quantizer import EncodedTensor, TensorQuantizer


@dataclass(frozen=True, kw_only=True)
class FlexRound:
    """Learned division of one layer's weights before rounding."""

    name: ClassVar[str] = "flexround"
    summary: ClassVar[str] = "learn what weights are divided by before they are rounded, and their scales"

    iterations: int = 500
    learning_rate: float = 0.003

    def __post_init__(self) -> None:
        """Refuse options out of their range."""
        check_learning(self.name, self.iterations, self.learning_rate)

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return the weight with new codes and scales; an output channel that they do not serve better keeps what it had."""
        wanted = aim(data, prepared)
        with alone(learning=True):
            return prepared.with_codes(self._learned(wanted, prepared.encoded))

    def _learned(self, wanted: Aim, encoded: EncodedTensor) -> EncodedTensor:
        levels, scales = grid(encoded), _Scales.of(encoded)
        division = _Division(wanted.weight, levels, scales)
        came = wanted.errors(encoded.decode())
        best = _Best(came, levels.encode(encoded.decode()), scales)
        output_error, weights = _output_error(wanted), torch.from_numpy(1 / np.maximum(came, np.finfo(np.float32).tiny)).float()
        optimizer = torch.optim.Adam(division.parameters, lr=self.learning_rate)
        for _ in range(self.iterations):
            codes, values = division.rounded()
            errors = output_error(values)
            best.offer(errors.detach().numpy(), codes, division.row_scales())
            optimizer.zero_grad()
            (errors * weights).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = grid(scales.put(encoded, best.scales)).store(best.codes)
        worse = wanted.errors(found.decode()).sum() > came.sum()  # learned in float32, judged in float64
        return encoded if worse else found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scales:
    """The scales of an encoded tensor where they may be learned; none where they stay."""

    #: float32 of shape (R,), and the index into them for every weight, in the weight's shape
    start: NDArray[np.float32]
    index: NDArray[np.int64]
    #: whether output channels share scales
    shared: bool

    @staticmethod
    def of(encoded: EncodedTensor) -> "_Scales":
        learned = isinstance(encoded, FittedTensor) or (isinstance(encoded, QuantizedTensor) and encoded.stored.storage.exact)
        if not learned:
            return _Scales(start=np.empty(0, np.float32), index=np.empty(0, np.int64), shared=False)
        assert isinstance(encoded, (QuantizedTensor, FittedTensor))
        granularity, rows = encoded.quantizer.granularity, encoded.rows
        index = granularity.from_rows(np.broadcast_to(np.arange(len(rows))[:, np.newaxis], rows.shape), encoded.shape)
        return _Scales(start=encoded.scales, index=index, shared=granularity.name in ("tensor", "tile"))

    @property
    def learned(self) -> bool:
        return bool(self.start.size)

    def channels(self) -> NDArray[np.int64]:
        """Return the output channel that each scale belongs to, where none is shared."""
        found = np.zeros(len(self.start), np.int64)
        found[self.index.reshape(len(self.index), -1)] = np.arange(len(self.index))[:, np.newaxis]
        return found

    def put(self, encoded: EncodedTensor, scales: NDArray[np.float32]) -> EncodedTensor:
        if not self.learned:
            return encoded
        if isinstance(encoded, FittedTensor):
            return replace(encoded, scales=scales)
        assert isinstance(encoded, QuantizedTensor)
        return replace(encoded, stored=FLOAT32.store(scales))


class _Division:
    """What is learned: logarithms of divisors, and of what scales are multiplied by."""

    def __init__(self, weight: NDArray[np.float32], levels: Grid, scales: _Scales) -> None:
        self.weight, self.levels, self.scales = torch.tensor(weight), levels, scales
        inputs = (1, weight.shape[1], *(1,) * (weight.ndim - 2))
        shapes = (weight.shape, (len(weight), *(1,) * (weight.ndim - 1)), inputs)
        self.divisors = [torch.zeros(shape, requires_grad=True) for shape in shapes]
        self.growth = torch.zeros(len(scales.start), requires_grad=True)
        self.parameters = [*self.divisors, self.growth] if scales.learned else self.divisors

    def _grown(self) -> Tensor:
        return (torch.tensor(self.scales.start) * self.growth.exp()).clamp(float(SMALLEST_SCALE), float(LARGEST_SCALE))

    def row_scales(self) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._grown().detach().numpy()
        return found

    def rounded(self) -> tuple[Codes, Tensor]:
        """Return the codes, and the values that they stand for, through which everything learns."""
        levels, index = self.levels, torch.tensor(self.scales.index)
        factors = self._grown()[index] if self.scales.learned else torch.tensor(levels.factors)
        ratios = self.weight / (factors * torch.stack([part.expand(self.weight.shape) for part in self.divisors]).sum(dim=0).exp())
        inside = ratios.clamp(float(levels.levels[0]), float(levels.levels[-1]))
        codes = levels.format.encode(ratios.detach().numpy())
        return codes, factors * (inside + (torch.from_numpy(levels.format.decode(codes)) - inside).detach())


class _Best:
    """Codes and scales of least error so far, by output channel or, where these share scales, by layer."""

    def __init__(self, errors: NDArray[np.floating[Any]], codes: Codes, scales: _Scales) -> None:
        self.errors, self.codes, self.scales = errors, codes, scales.start
        self.shared = scales.shared
        self.channels = scales.channels() if scales.learned and not scales.shared else None

    def offer(self, errors: NDArray[np.floating[Any]], codes: Codes, scales: NDArray[np.float32]) -> None:
        better = errors < self.errors
        if self.shared:
            better = np.full(better.shape, errors.sum() < self.errors.sum())
        self.errors = np.where(better, errors, self.errors)
        self.codes = np.where(better.reshape(-1, *(1,) * (codes.ndim - 1)), codes, self.codes)
        if self.channels is not None:
            self.scales = np.where(better[self.channels], scales, self.scales)
        elif self.shared and better[0]:
            self.scales = scales


def _output_error(wanted: Aim) -> Callable[[Tensor], Tensor]:
    """Return the function from a weight's values to the mean squared error of every output channel, in float32."""
    known, weight = wanted.moments, torch.tensor(wanted.weight)
    second, first = torch.from_numpy(known.second).float(), torch.from_numpy(known.first).float()
    shift = None if wanted.shift is None else torch.tensor(wanted.shift)

    def errors(values: Tensor) -> Tensor:
        rows = (values - weight).reshape(known.groups, -1, known.columns)
        squared = (torch.bmm(rows, second) * rows).sum(dim=2).reshape(-1)
        if shift is None:
            return squared
        return squared + 2 * shift * (rows * first[:, None]).sum(dim=2).reshape(-1) + shift**2

    return errors
