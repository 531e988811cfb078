"""How the scale of a group of values is chosen.

Everything here works on rows: a float32 array of shape (R, n) whose R rows each get one scale. "Error" is the sum over a row of
the squared differences to the decoded values, each times its weight where weights are given.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from formats.codec import Codes
from formats.errors import InvalidValueError
from formats.format import Format
from formats.names import unknown_name
from formats.scale_rules import (
    FPQ_FRACTIONS,
    MSE_FRACTIONS,
    RULES,
    UNEVEN_MSE_FRACTIONS,
    Problem,
    least_squares_scales,
    mse_fractions,
    twn_threshold,
)
from formats.scale_storage import FLOAT32, NO_SECOND, ScaleStorage, StoredScales

__all__ = ["FPQ_FRACTIONS", "MSE_FRACTIONS", "UNEVEN_MSE_FRACTIONS", "ScaleChoice", "least_squares_scales", "mse_fractions"]

Scales = NDArray[np.float32]
#: rules whose text form holds numbers, each with an example
_WITH_NUMBERS = {"percentile": "percentile99.9", "at": "at0.0078125"}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"


@dataclass(frozen=True, kw_only=True)
class ScaleChoice:
    """A rule for the scale.

    - ``absmax``: the largest magnitude goes to the largest level.
    - ``percentile{p}``: p percent of the magnitudes are at most the largest level.
    - ``mse``: the least error among ``mse_fractions`` of the absmax scale; the larger at a tie.
    - ``kl``: the least divergence between the histograms of the values and of their quantized form, as TensorRT calibrates by
      entropy (see ``formats.entropy``), among fractions of the absmax scale from 1/128 to 1; the larger at a tie. Meant for the
      many values of an activation or a tensor: a histogram of a few says little.
    - ``lsq``: from ``mse``, in turn, the codes nearest for the scale and the scale that is best for the codes, the closed form
      <x, q> / <q, q> (least squares for fixed codes q), for as long as the error falls.
    - ``twn``, for ``ternary``: ternary weight networks (Li et al., arXiv 1605.04711): magnitudes above 0.7 of their mean become
      +-1, and the scale is the mean of those. Codes follow that threshold, not the nearest level.
    - ``xnor``, for ``binary``: the mean magnitude, the least-squares scale for signs (XNOR-Net, arXiv 1603.05279, eq. 6).
    - ``repq``: the least error among the 99.9th, 99.99th and 99.999th percentile of the magnitudes as the largest level, as
      RepQ-ViT (arXiv 2212.08254) sets the scale of its log-sqrt2 quantizer, here ``ulogsqrt2_{b}``.
    - ``fpq``: the least error among 100 largest levels from 0.01 to 1.2 of the absmax, LLM-FP4's search for a minifloat's
      real-valued exponent bias (arXiv 2310.16836); see ``formats.methods.llm_fp4`` for why a bias is a scale. The paper compares
      layer outputs; the error here is that of the values themselves.
    - ``at{s}``: the scale s, whatever the values are, a row of zeros too: as imported models have it. ``at{s},{s},…`` gives one
      for each row, in order. A storage that does not hold the scale as it is is refused.
    """

    name: str
    percent: float = 100.0
    #: of ``at``: float32 numbers above zero
    given: tuple[float, ...] = ()

    @staticmethod
    def parse(text: str) -> "ScaleChoice":
        """Read the text form, such as ``percentile99.9`` or ``at0.0078125``."""
        if text in RULES and text not in _WITH_NUMBERS:
            return ScaleChoice(name=text)
        if re.fullmatch(f"at{_NUMBER}(,{_NUMBER})*", text):
            return ScaleChoice.at([float(number) for number in text.removeprefix("at").split(",")])
        match = re.fullmatch(r"percentile([0-9]+(?:\.[0-9]+)?)", text)
        if match is None:
            plain = [name for name in RULES if name not in _WITH_NUMBERS]
            raise unknown_name("scale choice", text, (*_WITH_NUMBERS.values(), *plain))
        percent = float(match[1])
        if not 0 < percent <= 100:
            raise InvalidValueError(f"percentile must be above 0 and at most 100, not {match[1]}")
        return ScaleChoice(name="percentile", percent=percent)

    @staticmethod
    def at(scales: Sequence[float] | NDArray[np.float32]) -> "ScaleChoice":
        """Return the choice of these scales, rounded to float32: one for each row, or one for all."""
        with np.errstate(over="ignore"):
            rounded = np.array(scales, np.float32)
        wrong = ~(np.isfinite(rounded) & (rounded > 0))
        if wrong.any():
            raise InvalidValueError(f"scale given must be finite and positive, not {scales[int(np.argmax(wrong))]}")
        return ScaleChoice(name="at", given=tuple(rounded.tolist()))

    def __str__(self) -> str:
        """Return the text form; given scales as the shortest decimals that come back as they are in float32."""
        if self.name == "at":
            return "at" + ",".join(str(np.float32(scale)) for scale in self.given)
        if self.name != "percentile":
            return self.name
        return f"percentile{np.format_float_positional(self.percent, trim='-')}"

    @property
    def format_name(self) -> str | None:
        """The only format that the rule is for, if there is one."""
        return RULES[self.name].format_name

    @property
    def by_nearest(self) -> bool:
        """Whether codes are the nearest for the scale."""
        return self.name != "twn"

    @property
    def takes_weights(self) -> bool:
        """Whether the rule heeds how much each value matters."""
        return RULES[self.name].takes_weights

    def scales(self, fmt: Format, rows: Scales, weights: Scales | None = None) -> Scales:
        """Return the scale of every row of (R, n), float32 of shape (R,); a row of zeros gets the scale 1.

        ``weights``, shaped like ``rows``, are how much each value's error counts. Raises ``ValueError`` for a NaN or an infinity:
        it leaves no usable scale.
        """
        return self.stored(fmt, rows, FLOAT32, weights).decode()

    def stored(self, fmt: Format, rows: Scales, storage: ScaleStorage, weights: Scales | None = None) -> StoredScales:
        """Return the scale of every row as ``storage`` keeps it.

        A rule that searches compares what can be stored, not what would then be rounded. Second scales, where the storage has any,
        are set by what the rule chooses without storage.
        """
        unusable = rows.size - int(np.isfinite(rows).sum())
        if unusable:
            raise InvalidValueError(f"values to scale for {fmt.name} must be finite, not NaN or Inf in {unusable} elements")
        if weights is not None and not self.takes_weights:
            raise InvalidValueError(f"importance must go with a scale chosen by error, such as mse, not with {self}")
        rule = RULES[self.name]
        free = Problem(fmt=fmt, rows=rows, weights=weights, percent=self.percent, given=self.given)
        if storage.exact:
            return storage.store(rule.choose(free))
        wanted = None if storage.powers_of_two and rule.searches else rule.choose(free)
        second = NO_SECOND if wanted is None else storage.second_scales(wanted, np.asarray(rows.any(axis=1)))
        if wanted is None or rule.searches:
            wanted = rule.choose(replace(free, storage=storage, second=second, free=wanted))
        stored = storage.store(wanted, second, up=rule.rounds_up)
        if rule.as_given:
            _refuse_change(wanted, stored)
        return stored

    def encode(self, fmt: Format, rows: Scales, scales: Scales, weights: Scales | None = None) -> Codes:
        """Return the codes that go with the chosen scales: the nearest, but for ``twn``."""
        if self.by_nearest:
            return fmt.encode(rows, scales[:, np.newaxis])
        above = np.abs(rows) > twn_threshold(rows, weights)
        return fmt.encode(np.where(above, np.sign(rows), np.float32(0)))


def _refuse_change(wanted: Scales, stored: StoredScales) -> None:
    """Raise where a scale is not stored as it is."""
    held = stored.decode()
    if (held != wanted).any():
        first = int(np.argmax(held != wanted))
        given, nearest = str(wanted[first]), str(held[first])
        raise InvalidValueError(f"scale given must be one that {stored.storage} holds, not {given}; nearest: {nearest}")
