"""Learned rounding: every weight takes the upper or the lower of its two neighbouring levels, whichever serves the layer's output.

AdaRound (Nagel et al., arXiv 2004.10568), on any grid: the soft weight is ``low + h(V) * (high - low)`` for the levels below and
above the weight at its scale, with the rectified sigmoid ``h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)`` (equation 23) and the
regulariser ``1 - |2h - 1|**beta`` (equation 24), beta falling from 20 to 2. V begins where the soft weight is the weight itself.

Conventions here: the layer's own output counts, without its activation function, for which the squared error over all calibration
samples is a quadratic form (``dse.ptq.moments``), so that every step sees all samples. Each output channel's error is divided by
that of rounding to the nearest, and the regulariser is a mean over the channel's weights: ``regularisation`` means the same
whatever the layer. For the first fifth of the steps it is left out, as in the authors' code. Scales stay as they are.

What was learned is then improved by exchange (``dse.ptq.descent``): a weight, or two at once, moves to its other neighbour for as
long as the error falls. It is not in the paper; the quadratic form makes it cheap. So are the codes that came, and of the three,
learned, improved, and as they came, each output channel keeps the best: the error on the calibration operand never grows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dse.ptq.aim import Aim, aim
from dse.ptq.alone import alone
from dse.ptq.descent import descend
from dse.ptq.grid import Grid, grid
from dse.ptq.step import LayerData, PreparedWeight
from formats.codec import Codes
from formats.errors import InvalidValueError
from formats.tensor_quantizer import TensorQuantizer

#: how far the rectified sigmoid reaches beyond 0 and 1
STRETCH = 0.1
BETA_FIRST, BETA_LAST = 20.0, 2.0
#: share of the steps before the regulariser sets in
WARM_UP = 0.2


@dataclass(frozen=True, kw_only=True)
class Round:
    """Learned rounding of one layer."""

    name: ClassVar[str] = "round"
    summary: ClassVar[str] = "learn for every weight which of its two neighbouring levels serves the layer's output"

    iterations: int = 300
    #: weight of the regulariser that draws each choice to 0 or 1
    regularisation: float = 30.0
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        """Refuse options out of their range."""
        check_learning(self.name, self.iterations, self.learning_rate)
        if not self.regularisation > 0:
            raise InvalidValueError(f"regularisation of round must be above 0, not {self.regularisation}")

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return the weight with new codes; an output channel that they do not serve better keeps those that it had."""
        wanted, levels = aim(data, prepared), grid(prepared.encoded)
        with alone(learning=True):
            choice = Choice.between_neighbours(levels, wanted.weight)
            self._learn(choice, wanted, levels)
        came = choice.nearest_upper(prepared.encoded.decode())
        best = prepared
        for upper in (choice.upper(), came):
            codes = choice.codes(levels, exchanged(choice, wanted, upper))
            best = best.with_codes(levels.store(wanted.better(levels, codes, best.encoded)))
        return best

    def _learn(self, choice: "Choice", wanted: Aim, levels: Grid) -> None:
        groups = wanted.moments.groups
        weight = torch.tensor(wanted.weight).reshape(groups, -1, wanted.moments.second.shape[1])
        second = torch.from_numpy(wanted.moments.second).float()
        nearest = wanted.moments.squared_errors(levels.values(levels.encode(wanted.weight)) - wanted.weight)
        weights = torch.from_numpy(1 / np.maximum(nearest, np.finfo(np.float32).tiny)).float().reshape(groups, -1, 1)
        optimizer = torch.optim.Adam([choice.logits], lr=self.learning_rate)
        for step in range(self.iterations):
            error = choice.soft().reshape(weight.shape) - weight
            # the gradient of e H e' is 2 e H: one product gives both
            squared = error * torch.bmm(error.detach(), second) * 2 * weights
            loss = squared.sum() + self.regularisation * choice.undecided(step / self.iterations).mean(dim=1).sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def check_learning(name: str, iterations: int, learning_rate: float) -> None:
    """Refuse options of a step that learns which are out of their range."""
    if iterations < 1:
        raise InvalidValueError(f"iterations of {name} must be at least 1, not {iterations}")
    if not learning_rate > 0:
        raise InvalidValueError(f"learning rate of {name} must be above 0, not {learning_rate}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """A soft choice between two neighbouring levels for every weight, in the weight's shape."""

    #: index of the lower level
    below: NDArray[np.int64]
    low: Tensor
    high: Tensor
    #: V, float32 to be learned
    logits: Tensor

    @staticmethod
    def between_neighbours(levels: Grid, weight: NDArray[np.float32]) -> "Choice":
        """Return the choice that is nearest to ``weight`` itself: within the levels' range the soft values are the weights."""
        below = levels.lower_levels(weight)
        low, high = levels.levels[below] * levels.factors, levels.levels[below + 1] * levels.factors
        share = np.clip((weight - low) / (high - low), 0, 1)
        stretched = (share + STRETCH) / (1 + 2 * STRETCH)
        logits = torch.from_numpy(np.log(stretched / (1 - stretched))).float().requires_grad_()
        return Choice(below=below, low=torch.from_numpy(low), high=torch.from_numpy(high), logits=logits)

    def upper_shares(self) -> Tensor:
        """Return h(V), 0 for the lower level to 1 for the upper."""
        return (torch.sigmoid(self.logits) * (1 + 2 * STRETCH) - STRETCH).clamp(0, 1)

    def soft(self) -> Tensor:
        """Return the soft weights, through which V learns."""
        return self.low + self.upper_shares() * (self.high - self.low)

    def undecided(self, progress: float) -> Tensor:
        """Return the regulariser of every weight, (output channels, columns), at a share of all steps."""
        shares = self.upper_shares().reshape(len(self.logits), -1)
        if progress < WARM_UP:
            return torch.zeros_like(shares)
        beta = BETA_LAST + (BETA_FIRST - BETA_LAST) * (1 - (progress - WARM_UP) / (1 - WARM_UP))
        found: Tensor = 1 - (2 * shares - 1).abs() ** beta
        return found

    def upper(self) -> NDArray[np.bool_]:
        """Return where the upper level is chosen, by more than half."""
        return np.asarray(self.upper_shares().detach().numpy() > 0.5)

    def nearest_upper(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return where the upper level is nearer to ``values``."""
        low, high = self.low.numpy(), self.high.numpy()
        return np.asarray(np.abs(values - high) < np.abs(values - low))

    def codes(self, levels: Grid, upper: NDArray[np.bool_]) -> Codes:
        """Return the codes of the upper or the lower levels, in the weight's shape."""
        return levels.codes_of(self.below + upper)


def exchanged(choice: Choice, wanted: Aim, upper: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which weights take their upper level when no exchange of one or two lowers the output error any more."""
    known = wanted.moments
    low, high = choice.low.numpy().astype(np.float64), choice.high.numpy().astype(np.float64)
    error, steps, start = known.by_group(low - wanted.weight), known.by_group(high - low), known.by_group(upper) > 0
    found = [descend(error[group], known.second[group], steps[group], start[group]) for group in range(known.groups)]
    return np.stack(found).reshape(upper.shape)
