"""Weights as the weight-only kernels take them."""

from dataclasses import dataclass

import numpy as np
import torch

from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels import environment
from hwmodels.gpu.kernels.decode_arguments import factor, paired_arguments
from hwmodels.gpu.kernels.operand_type import CARRIERS, OperandType, operand_type
from hwmodels.gpu.kernels.packing import PackedWeight


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightOperand:
    """A packed weight on a device, and how its codes become what tensor cores multiply with activations of one type."""

    weight: PackedWeight
    #: name of the activations' type
    activation: str
    type: OperandType
    #: ``OperandType.table`` for codes of that kind; one element for other kinds
    table: torch.Tensor

    @property
    def fmt(self) -> Format:
        """The weights' format."""
        return self.weight.format


def prepare(weight: PackedWeight, activation: str, *, exact: bool = True, device: torch.device | None = None) -> WeightOperand:
    """Return a weight for ``float16`` or ``bfloat16`` activations on a device, by default where kernels run.

    With ``exact=False`` values that the activations' type lacks are rounded to it, and multiplied faster. Raises ``ValueError`` for
    other activations, for formats that cannot be decoded in registers, and without a device.
    """
    found = operand_type(weight.format, activation, exact=exact)
    _check_scales(weight, factor(paired_arguments(found.decoding, found.carrier)) * found.factor)
    where = environment.device() if device is None else device
    table = (found.table if found.decoding.kind == "table" else torch.zeros(1, dtype=CARRIERS[found.carrier])).to(where)
    return WeightOperand(weight=weight.to(where), activation=activation, type=found, table=table)


def _check_scales(weight: PackedWeight, power: float) -> None:
    """Refuse scales that a power of two, which decoding leaves to them, takes out of float32."""
    largest = float(weight.scales.max())
    if largest * power > float(np.finfo(np.float32).max):
        most = float(np.finfo(np.float32).max) / power
        raise InvalidValueError(f"scales of {weight.format.name} must be at most {most:g} in this kernel, not {largest:g}")
