"""How arrays are quantized on a device: what the kernel is compiled for, and the tables and scales that it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton

from formats.block import BlockFormat
from formats.errors import InvalidValueError
from formats.format import Format
from hwmodels.gpu.kernels.encoding import rounding_of
from hwmodels.gpu.kernels.environment import launcher
from hwmodels.gpu.kernels.quantize_groups import quantize_groups

#: elements that a program works on at once
AT_ONCE = 4096
#: longest group that one program holds in registers; of a longer one the elements are read twice
LONGEST_WHOLE = 8192


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How an array of (rows, length) is quantized: launches of it move nothing to the device and wait for nothing."""

    #: of the codes
    fmt: Format
    #: elements along a row that share a scale
    group: int
    rounding: str = "nearest_even"
    #: where scales come from, as ``quantize_groups`` is compiled for it
    scale: Mapping[str, Any]
    #: scales that are given, and how far those of the next row and the next group are away
    given: torch.Tensor | None = None
    strides: tuple[int, int] = (0, 0)
    #: of scales that are found
    dtype: torch.dtype = torch.float32
    #: scale of the whole tensor, and the largest element times it
    tensor: float = 1.0
    reach: float = 1.0

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the codes, the scales, and a count, 0 unless elements have no code or leave no scale: all still on the device."""
        rows, per_row = x.shape[0], -(-x.shape[1] // self.group)
        codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
        scales = torch.empty((rows, per_row), dtype=self.dtype, device=x.device) if self.given is None else self.given
        count = torch.zeros(1, dtype=torch.int32, device=x.device)
        if x.numel():
            self._launch(x, codes, scales, count, per_row)
        return codes, scales, count

    def _launch(self, x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, count: torch.Tensor, per_row: int) -> None:
        rule = _cached_rounding(self.fmt, self.rounding, x.device)
        constants, warps = self.constants(), self.warps
        groups = x.shape[0] * per_row
        pieces = triton.cdiv(self.group, constants["SIZE"]) if self.given is not None else 1
        grid = (triton.cdiv(groups, constants["GROUPS"]) * pieces,)
        with np.errstate(all="ignore"):  # of the interpreter, where quotients overflow as they do on the device
            launcher(quantize_groups, grid)(
                x, codes, scales, count, rule.thresholds, rule.level_codes, self.tensor, self.reach, groups, per_row, x.shape[1],
                self.group, *self.strides, **constants, **rule.constants, num_warps=warps, enable_fp_fusion=False,
            )  # fmt: skip

    def constants(self) -> dict[str, Any]:
        """Return what the kernel is compiled with, apart from the rounding."""
        size = min(triton.next_power_of_2(self.group), AT_ONCE if self.given is not None else LONGEST_WHOLE)
        pieces = 1 if self.given is not None else triton.cdiv(self.group, size)
        return {**_NO_SCALES, **self.scale, "GROUPS": max(1, AT_ONCE // size), "SIZE": size, "PIECES": pieces}

    @property
    def warps(self) -> int:
        """Warps of a program: 32 elements for each thread."""
        constants = self.constants()
        return int(min(32, max(4, constants["GROUPS"] * constants["SIZE"] // 1024)))


_NO_SCALES = {"BELOW": 0, "UNIT": 0, "LOWEST": 0, "HIGHEST": 0, "SCALE_MANTISSA": 0, "SCALE_FIRST": 0, "LEVEL": 0}
_cached_rounding = lru_cache(maxsize=64)(rounding_of)


def given_scales(fmt: Format, length: int, scales: torch.Tensor, rounding: str = "nearest_even") -> Plan:
    """Return the plan for float32 scales of shape (1 or rows, groups), the groups being equal parts of a row."""
    strides = (int(scales.shape[0] > 1) * scales.shape[1], int(scales.shape[1] > 1))
    group = max(1, length // scales.shape[1])
    return Plan(fmt=fmt, group=group, rounding=rounding, scale={"SCALES": "given"}, given=scales, strides=strides)


def absmax_scales(fmt: Format, group: int, rounding: str = "nearest_even") -> Plan:
    """Return the plan for scales that are each group's largest magnitude over the format's largest level."""
    if group < 1:
        raise InvalidValueError(f"group of a quantize kernel must be at least 1 element, not {group}")
    level = fmt.largest if fmt.largest > 0 else np.float32(-fmt.minimum)
    return Plan(fmt=fmt, group=group, rounding=rounding, scale={"SCALES": "absmax", "LEVEL": int(level.view(np.int32))})


def block_scales(fmt: BlockFormat, tensor: np.float32) -> Plan:
    """Return the plan for a block format and the scale of the whole tensor."""
    closed = fmt.scale_format.closed_form
    bits = {"LOWEST": np.float32(fmt.scale_format.values[1]), "HIGHEST": fmt.scale_format.largest}
    scale = {
        "SCALES": "power" if fmt.scale == "e8m0" else "ratio",
        "BELOW": fmt.largest_exponent,
        "UNIT": fmt.unit_exponent,
        "SCALE_MANTISSA": closed.mantissa_bits if closed else 0,
        "SCALE_FIRST": (closed.minimum_exponent + 127) << 23 if closed else 0,
        **{name: int(value.view(np.int32)) for name, value in bits.items()},
    }
    reach = float(np.float32(fmt.element.largest * tensor))
    return Plan(fmt=fmt.element, group=fmt.block, scale=scale, dtype=torch.uint8, tensor=float(tensor), reach=reach)


def tensor_scale(fmt: BlockFormat, x: torch.Tensor) -> np.float32:
    """Return the scale of all blocks: 1 where blocks have powers of two, else such that the largest scale is the largest level."""
    if fmt.scale == "e8m0" or x.numel() == 0:
        return np.float32(1)
    largest = np.float32(x.abs().max().item())
    if not np.isfinite(largest):
        refuse(fmt.name, x)
    return max(largest / (fmt.element.largest * fmt.scale_format.largest), np.finfo(np.float32).tiny) if largest else np.float32(1)


def refuse(name: str, x: torch.Tensor) -> None:
    """Raise ``ValueError`` for elements that leave no scale."""
    count = int((~torch.isfinite(x)).sum())
    if count:
        raise InvalidValueError(f"values for {name} must be finite, not NaN or Inf in {count} elements")
