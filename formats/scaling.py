"""How the scale of a group of values is chosen.

Everything here works on rows: a float32 array of shape (R, n) whose R rows each get one scale.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.errors import InvalidValueError
from formats.format import Format
from formats.names import unknown_name

#: fractions of the largest magnitude that ``mse`` tries as the largest level; beyond 1 the levels sit lower within the range
MSE_FRACTIONS = np.linspace(0.1, 1.25, 47, dtype=np.float32)
_SMALLEST_SCALE, _LARGEST_SCALE = np.finfo(np.float32).tiny, np.finfo(np.float32).max


@dataclass(frozen=True, kw_only=True)
class ScaleChoice:
    """A rule for the scale: ``absmax``, ``percentile{p}`` with p in percent, or ``mse``."""

    name: str
    percent: float = 100.0

    @staticmethod
    def parse(text: str) -> "ScaleChoice":
        """Read the text form, such as ``percentile99.9``."""
        if text in ("absmax", "mse"):
            return ScaleChoice(name=text)
        match = re.fullmatch(r"percentile([0-9]+(?:\.[0-9]+)?)", text)
        if match is None:
            raise unknown_name("scale choice", text, ("absmax", "mse", "percentile99.9"))
        percent = float(match[1])
        if not 0 < percent <= 100:
            raise InvalidValueError(f"percentile must be above 0 and at most 100, not {match[1]}")
        return ScaleChoice(name="percentile", percent=percent)

    def __str__(self) -> str:
        """Return the text form."""
        if self.name != "percentile":
            return self.name
        return f"percentile{np.format_float_positional(self.percent, trim='-')}"

    def scales(self, fmt: Format, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scale of every row of (R, n), float32 of shape (R,); a row of zeros gets the scale 1.

        Raises ``ValueError`` for a NaN or an infinity: it leaves no usable scale.
        """
        unusable = rows.size - int(np.isfinite(rows).sum())
        if unusable:
            raise InvalidValueError(f"values to scale for {fmt.name} must be finite, not NaN or Inf in {unusable} elements")
        return _CHOICES[self.name](fmt, rows, self.percent)


def _reach(fmt: Format, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitudes that the format has to hold; one without negative values can hold none of theirs."""
    return np.abs(rows) if fmt.signed else np.maximum(rows, np.float32(0))


def _from_largest(fmt: Format, largest: NDArray[np.float32]) -> NDArray[np.float32]:
    scales = (largest / fmt.largest).astype(np.float32)
    return np.where(largest == 0, np.float32(1), np.maximum(scales, _SMALLEST_SCALE))


def _absmax(fmt: Format, rows: NDArray[np.float32], percent: float) -> NDArray[np.float32]:
    del percent
    return _from_largest(fmt, _reach(fmt, rows).max(axis=1, initial=0))


def _percentile(fmt: Format, rows: NDArray[np.float32], percent: float) -> NDArray[np.float32]:
    """Scale such that ``percent`` of the magnitudes are at most the largest level; the largest of all where it is zero."""
    magnitudes = _reach(fmt, rows)
    largest = magnitudes.max(axis=1, initial=0)
    if rows.shape[1]:
        chosen = np.percentile(magnitudes, percent, axis=1).astype(np.float32)
        largest = np.where(chosen > 0, chosen, largest)
    return _from_largest(fmt, largest)


def _mse(fmt: Format, rows: NDArray[np.float32], percent: float) -> NDArray[np.float32]:
    """Scale among ``MSE_FRACTIONS`` of the absmax scale with the least sum of squared errors; the larger at a tie."""
    full = _absmax(fmt, rows, percent)
    best, least = full, np.full(len(rows), np.inf)
    buffer = np.empty(rows.shape, np.float32)
    for fraction in MSE_FRACTIONS[::-1]:
        with np.errstate(over="ignore"):
            scales = np.clip(full * fraction, _SMALLEST_SCALE, _LARGEST_SCALE)
        fmt.quantize(rows, scales[:, np.newaxis], out=buffer)
        np.subtract(buffer, rows, out=buffer)
        error = np.einsum("ij,ij->i", buffer, buffer, dtype=np.float64)
        better = error < least
        best, least = np.where(better, scales, best), np.where(better, error, least)
    return np.where(rows.any(axis=1), best, np.float32(1))


_CHOICES: dict[str, Callable[[Format, NDArray[np.float32], float], NDArray[np.float32]]] = {
    "absmax": _absmax,
    "percentile": _percentile,
    "mse": _mse,
}
