"""Bias correction: the mean error that rounding brings to each output channel is taken off its bias.

Nagel et al., arXiv 1906.04721, section 4.2: ``b - (W^ - W) E[x]``, with E[x] measured on the calibration operand (their empirical
form, not the one from batch-norm statistics). A convolution's E[x] is over samples and positions with the zeros of its padding, so
that the mean error becomes zero exactly as the layer computes it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from dse.ptq.moments import moments
from dse.ptq.step import LayerData, PreparedWeight
from formats.tensor_quantizer import TensorQuantizer


@dataclass(frozen=True, kw_only=True)
class CorrectBias:
    """A bias that makes up for the mean error; best as the last step, since others change what it corrects."""

    name: ClassVar[str] = "correct_bias"
    summary: ClassVar[str] = "take the mean output error that rounding brings off the bias"

    def apply(self, data: LayerData, quantizer: TensorQuantizer, prepared: PreparedWeight) -> PreparedWeight:
        """Return the weight with the shift of the bias that its codes and factors ask for, in place of any that it came with."""
        error = prepared.values().astype(np.float64) - data.weight
        return replace(prepared, bias_shift=(-moments(data).mean_errors(error)).astype(np.float32))
