"""The rules that scales are chosen by; ``formats.scaling`` says what each is and where it comes from.

A rule takes a ``Problem``, the rows of one tensor with all that bears on their scales, and returns float32 scales of shape (R,).
"Error" is the sum over a row of the squared differences to the decoded values, each times its weight where weights are given.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from formats.entropy import Histograms
from formats.errors import InvalidValueError
from formats.format import Format
from formats.scale_storage import FLOAT32, LARGEST_SCALE, NO_SECOND, SMALLEST_SCALE, ScaleStorage, SecondScales

#: fractions of the largest magnitude that ``mse`` tries as the largest level; beyond 1 the levels sit lower within the range
MSE_FRACTIONS = np.linspace(0.1, 1.25, 47, dtype=np.float32)
#: the same for levels that are not evenly spaced: where they are sparse at the top, most do better with the top left unused
UNEVEN_MSE_FRACTIONS = np.append(MSE_FRACTIONS, np.geomspace(1.3, 7.7, 24).astype(np.float32))
#: the same for ``fpq`` (LLM-FP4's candidates)
FPQ_FRACTIONS = np.linspace(0.01, 1.2, 100, dtype=np.float32)
#: the same for ``kl``, which only cuts off: twelve to an octave
KL_FRACTIONS = (2.0 ** (np.arange(-84, 1) / 12)).astype(np.float32)
#: percentiles that ``repq`` tries as the largest level
REPQ_PERCENTILES = (99.9, 99.99, 99.999)
#: steps after which ``lsq`` stops at the latest
LSQ_STEPS = 100
#: threshold of ternary weight networks, in mean magnitudes
TWN_THRESHOLD = 0.7

Scales = NDArray[np.float32]
#: from scales to what they cost each row, float64 of shape (R,)
Measure = Callable[[Scales], NDArray[np.float64]]


def mse_fractions(fmt: Format) -> NDArray[np.float32]:
    """Return the fractions of the absmax scale that ``mse`` tries for a format."""
    even = fmt.closed_form is not None and fmt.closed_form.kind == "uniform"
    return MSE_FRACTIONS if even else UNEVEN_MSE_FRACTIONS


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """What a rule chooses scales for, and among which."""

    fmt: Format
    rows: Scales
    weights: Scales | None = None
    percent: float = 100.0
    #: scales that are given beforehand: one for each row, or one for all
    given: tuple[float, ...] = ()
    storage: ScaleStorage = FLOAT32
    second: SecondScales = NO_SECOND
    #: what the rule chooses where any scale can be stored, if that is known: what it rounds to is tried too
    free: Scales | None = None

    def storable(self, scales: Scales, *, up: bool = False) -> Scales:
        """Return the scales nearest to these that can be stored."""
        usable = np.clip(scales, SMALLEST_SCALE, LARGEST_SCALE)
        return self.storage.store(usable, self.second, up=up).decode()

    def errors(self, scales: Scales, buffer: Scales) -> NDArray[np.float64]:
        """Return the error of every row under these scales; ``buffer``, shaped like the rows, is written to."""
        self.fmt.quantize(self.rows, scales[:, np.newaxis], out=buffer)
        np.subtract(buffer, self.rows, out=buffer)
        found: NDArray[np.float64]
        if self.weights is None:
            found = np.einsum("ij,ij->i", buffer, buffer, dtype=np.float64)
        else:
            found = np.einsum("ij,ij,ij->i", self.weights, buffer, buffer, dtype=np.float64)
        return found

    def best(self, candidates: Iterable[Scales], start: Scales, measure: Measure | None = None) -> Scales:
        """Return each row's candidate of least error, or ``measure``, the first at a tie, and 1 for a row of zeros."""
        best, least = start, np.full(len(self.rows), np.inf)
        buffer = np.empty(self.rows.shape, np.float32)
        rounded = () if self.free is None else (self.storable(self.free),)
        for scales in chain(candidates, rounded):
            error = self.errors(scales, buffer) if measure is None else measure(scales)
            better = error < least
            best, least = np.where(better, scales, best), np.where(better, error, least)
        return np.where(self.rows.any(axis=1), best, np.float32(1))


def _reach(fmt: Format, rows: Scales) -> Scales:
    """Magnitudes that the format has to hold; one without negative values can hold none of theirs."""
    return np.abs(rows) if fmt.signed else np.maximum(rows, np.float32(0))


def _from_largest(fmt: Format, largest: Scales) -> Scales:
    level = fmt.largest if fmt.largest > 0 else np.float32(-fmt.minimum)  # a zero point may leave nothing above zero
    scales = (largest / level).astype(np.float32)
    return np.where(largest == 0, np.float32(1), np.maximum(scales, SMALLEST_SCALE))


def _absmax(problem: Problem) -> Scales:
    return _from_largest(problem.fmt, _reach(problem.fmt, problem.rows).max(axis=1, initial=0))


def _percentile(problem: Problem) -> Scales:
    """Scale such that ``percent`` of the magnitudes are at most the largest level; the largest of all where it is zero."""
    return _of_percentile(problem, problem.percent)


def _of_percentile(problem: Problem, percent: float) -> Scales:
    magnitudes = _reach(problem.fmt, problem.rows)
    largest = magnitudes.max(axis=1, initial=0)
    if problem.rows.shape[1]:
        chosen = np.percentile(magnitudes, percent, axis=1).astype(np.float32)
        largest = np.where(chosen > 0, chosen, largest)
    return _from_largest(problem.fmt, largest)


def _fractions(problem: Problem, full: Scales, fractions: Scales) -> Iterator[Scales]:
    """Return what can be stored near the fractions of ``full``, from the largest down."""
    if problem.storage.powers_of_two:  # a few powers cover them all; one more than the largest fraction reaches
        with np.errstate(over="ignore"):
            scales = problem.storable(full * fractions[-1], up=True)
        lowest = full * fractions[0] / 2
        while (scales > lowest).any():
            yield scales
            scales = problem.storable(scales / np.float32(2))
            lowest = np.where(scales <= SMALLEST_SCALE, scales, lowest)
        return
    for fraction in fractions[::-1]:
        with np.errstate(over="ignore"):
            scales = np.clip(full * fraction, SMALLEST_SCALE, LARGEST_SCALE)
        yield problem.storable(scales)


def _mse(problem: Problem) -> Scales:
    full = _absmax(problem)
    return problem.best(_fractions(problem, full, mse_fractions(problem.fmt)), full)


def _fpq(problem: Problem) -> Scales:
    full = _absmax(problem)
    return problem.best(_fractions(problem, full, FPQ_FRACTIONS), full)


def _kl(problem: Problem) -> Scales:
    full = _absmax(problem)
    histograms = Histograms(problem.fmt, _reach(problem.fmt, problem.rows), problem.weights)
    return problem.best(_fractions(problem, full, KL_FRACTIONS), full, histograms.divergences)


def _repq(problem: Problem) -> Scales:
    candidates = [problem.storable(_of_percentile(problem, percent)) for percent in REPQ_PERCENTILES[::-1]]
    return problem.best(candidates, candidates[0])


def _lsq(problem: Problem) -> Scales:
    scales, buffer = _mse(problem), np.empty(problem.rows.shape, np.float32)
    errors = problem.errors(scales, buffer)
    for _ in range(LSQ_STEPS):
        refined = problem.storable(least_squares_scales(problem.fmt, problem.rows, scales, problem.weights))
        found = problem.errors(refined, buffer)
        better = found < errors
        if not better.any():
            break
        scales, errors = np.where(better, refined, scales), np.where(better, found, errors)
    return np.where(problem.rows.any(axis=1), scales, np.float32(1))


def least_squares_scales(fmt: Format, rows: Scales, scales: Scales, weights: Scales | None = None) -> Scales:
    """Return the scales of least error for the codes that the rows get under ``scales``: <x, q> / <q, q>, float32.

    Where all codes are zero, or the quotient is not positive, the scale stays.
    """
    levels = fmt.decode(fmt.encode(rows, scales[:, np.newaxis]))
    weighted = levels if weights is None else levels * weights
    across = np.einsum("ij,ij->i", rows, weighted, dtype=np.float64)
    square = np.einsum("ij,ij->i", levels, weighted, dtype=np.float64)
    usable = (across > 0) & (square > 0)
    quotient = np.divide(across, square, out=scales.astype(np.float64), where=usable)
    refined: Scales = np.clip(quotient, SMALLEST_SCALE, LARGEST_SCALE).astype(np.float32)
    return refined


def _mean_magnitude(rows: Scales, weights: Scales | None, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Weighted mean of the chosen magnitudes of each row; 0 where none is."""
    given = np.ones(rows.shape) if weights is None else weights.astype(np.float64)
    if chosen is not None:
        given = given * chosen
    total = given.sum(axis=1)
    mean: NDArray[np.float64] = np.divide((given * np.abs(rows)).sum(axis=1), total, out=np.zeros(len(rows)), where=total > 0)
    return mean


def _positive(means: NDArray[np.float64]) -> Scales:
    return np.where(means > 0, np.clip(means, SMALLEST_SCALE, LARGEST_SCALE), 1.0).astype(np.float32)


def _xnor(problem: Problem) -> Scales:
    return _positive(_mean_magnitude(problem.rows, problem.weights))


def twn_threshold(rows: Scales, weights: Scales | None) -> NDArray[np.float64]:
    """Return the magnitude above which a value of each row is not zero, (R, 1)."""
    return TWN_THRESHOLD * _mean_magnitude(rows, weights)[:, np.newaxis]


def _twn(problem: Problem) -> Scales:
    above = np.abs(problem.rows) > twn_threshold(problem.rows, problem.weights)
    return _positive(_mean_magnitude(problem.rows, problem.weights, above))


def _given(problem: Problem) -> Scales:
    given, rows = np.array(problem.given, np.float32), len(problem.rows)
    if len(given) not in (1, rows):
        raise InvalidValueError(f"scales given must be {rows}, one for each group of values, or one for all, not {len(given)}")
    return np.broadcast_to(given, rows)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A function from a problem to scales, and what is to know about it."""

    choose: Callable[[Problem], Scales]
    #: compares the error of candidates, each as it would be stored
    searches: bool = False
    takes_weights: bool = False
    #: wants a scale that clips nothing more
    rounds_up: bool = False
    format_name: str | None = None
    #: its scales may not change when they are stored
    as_given: bool = False


RULES: dict[str, Rule] = {
    "at": Rule(choose=_given, as_given=True),
    "absmax": Rule(choose=_absmax, rounds_up=True),
    "percentile": Rule(choose=_percentile, rounds_up=True),
    "mse": Rule(choose=_mse, searches=True, takes_weights=True),
    "kl": Rule(choose=_kl, searches=True, takes_weights=True),
    "lsq": Rule(choose=_lsq, searches=True, takes_weights=True),
    "repq": Rule(choose=_repq, searches=True, takes_weights=True),
    "fpq": Rule(choose=_fpq, searches=True, takes_weights=True),
    "twn": Rule(choose=_twn, takes_weights=True, format_name="ternary"),
    "xnor": Rule(choose=_xnor, takes_weights=True, format_name="binary"),
}
