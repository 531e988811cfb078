"""What Brevitas calls to quantize a tensor, with a format's rounding inside; imported by ``brevitas_bridge`` alone.

Scales come from Brevitas' own scaling modules, and so does everything that is done to them: statistics, calibration, learning.
"""

from typing import Any

import torch
from brevitas.core.function_wrapper import LearnedRoundSte, RoundSte
from brevitas.core.quant import IntQuant, RescalingIntQuant
from brevitas.core.quant.float import FloatQuant
from brevitas.core.utils import StatelessBuffer
from brevitas.core.zero_point import ZeroZeroPoint
from torch import Tensor, nn

from formats.boundaries import level_codes
from formats.errors import InvalidValueError
from formats.registry import scalar
from formats.torch_bridge import operator
from formats.torch_bridge.layout import passing_range


class LargestLevel(nn.Module):
    """What statistics are divided by to give a scale, in the place where Brevitas has the largest integer or float."""

    def __init__(self, format_name: str, device: Any = None, dtype: Any = None) -> None:
        """Take the largest level of the format."""
        super().__init__()
        largest = float(scalar(format_name).largest)
        self.level = StatelessBuffer(torch.tensor(largest, device=device, dtype=dtype))

    def forward(self, *widths: Any) -> Tensor:
        """Return the level, whatever the widths that Brevitas asks with."""
        level: Tensor = self.level()
        return level


class FormatRounding(nn.Module):
    """Quantizes with scales that broadcast, in the dtype of what is quantized."""

    def __init__(self, format_name: str, rounding: str, float_to_int_impl: nn.Module, scale_follows: bool = False) -> None:
        """Round as ``rounding`` says, or as Brevitas' learned rounding does; ``scale_follows`` what is quantized, if set."""
        super().__init__()
        if type(float_to_int_impl) is not RoundSte and not isinstance(float_to_int_impl, LearnedRoundSte):
            found = type(float_to_int_impl).__name__
            raise InvalidValueError(f"float_to_int_impl_type must be round or learned_round, not that of {found}; see rounding=")
        self.format_name, self.rounding, self.scale_follows = format_name, rounding, scale_follows
        self.float_to_int_impl = float_to_int_impl if isinstance(float_to_int_impl, LearnedRoundSte) else None
        levels = scalar(format_name).float32_values[level_codes(scalar(format_name))]
        self.levels, self.zero_index = StatelessBuffer(torch.tensor(levels)), int((levels < 0).sum())
        #: set by Brevitas while it asks for a part of a weight
        self.subtensor_slice_list: list[tuple[int, int] | None] = [None]

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """Return the values that stand for ``x``."""
        if self.scale_follows and self.subtensor_slice_list != [None]:
            self.subtensor_slice_list = [None]  # Brevitas does so only when all went well
            raise InvalidValueError(
                "scale of a weight that is quantized in parts must be a parameter, not follow the part; see scaling='parameter'"
            )
        if scale.ndim > x.ndim:  # Brevitas reads scales off by quantizing a single zero
            x = x.expand(torch.broadcast_shapes(x.shape, scale.shape))  # type: ignore[no-untyped-call]
        if self.float_to_int_impl is not None:
            learned: Tensor = self._learned(x.float() / scale.float()) * scale.float()
            return learned.to(x.dtype)
        values: Tensor = operator.quantize(x, scale.float(), self.format_name, self.rounding)
        return values.to(x.dtype)

    def _learned(self, ratio: Tensor) -> Tensor:
        """Round on the line of level indices, counted from zero's, where Brevitas' learned rounding chooses up or down.

        Between the two levels the value is interpolated, as it is for integers.
        """
        levels: Tensor = self.levels()
        last = len(levels) - 1
        within = ratio.detach().clamp(levels[0], levels[-1])
        below = (torch.searchsorted(levels, within.contiguous(), right=True) - 1).clamp(0, last - 1)
        low, high = levels[below], levels[below + 1]
        position = below + (within - low) / (high - low)
        assert self.float_to_int_impl is not None
        chosen = (self.float_to_int_impl(position - self.zero_index) + self.zero_index).clamp(0, last)
        base = torch.where(chosen == below + 1, below, chosen.detach().floor().long()).clamp(0, last - 1)
        value: Tensor = levels[base] + (chosen - base) * (levels[base + 1] - levels[base])
        passing = ratio.clamp(*passing_range(scalar(self.format_name)))
        return value + (passing - passing.detach())


class FormatIntQuant(IntQuant):
    """Brevitas' integer rounding, by a format of integers."""

    def __init__(
        self,
        narrow_range: bool,
        signed: bool,
        input_view_impl: nn.Module,
        rounding_impl: FormatRounding,
        quant_delay_steps: int = 0,
    ) -> None:
        """Take the rounding; the rest as Brevitas has it."""
        super().__init__(narrow_range, signed, input_view_impl, quant_delay_steps=quant_delay_steps)
        self.rounding_impl = rounding_impl
        self.float_to_int_impl = rounding_impl.float_to_int_impl or RoundSte()

    def to_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """Return the integers as floats."""
        integers: Tensor = self.rounding_impl(self.input_view_impl(x) / scale, torch.ones_like(scale))
        return integers

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """Return the values."""
        values: Tensor = self.delay_wrapper(x, self.rounding_impl(self.input_view_impl(x), scale))
        return values


class FormatRescalingQuant(RescalingIntQuant):
    """Brevitas' scaled integers, without a zero point."""

    def __init__(
        self,
        int_quant: nn.Module,
        scaling_impl: nn.Module,
        int_scaling_impl: nn.Module,
        zero_point_impl: nn.Module,
        bit_width_impl: nn.Module,
    ) -> None:
        """Refuse a zero point; the rest as Brevitas has it."""
        if not isinstance(zero_point_impl, ZeroZeroPoint):
            raise InvalidValueError(f"zero_point_impl must be ZeroZeroPoint, not {type(zero_point_impl).__name__}")
        super().__init__(int_quant, scaling_impl, int_scaling_impl, zero_point_impl, bit_width_impl)


class FormatFloatQuant(FloatQuant):
    """Brevitas' scaled minifloats, by a floating-point format."""

    def __init__(
        self,
        signed: bool,
        exponent_bit_width_impl: nn.Module,
        mantissa_bit_width_impl: nn.Module,
        exponent_bias_impl: nn.Module,
        float_clamp_impl: nn.Module,
        input_view_impl: nn.Module,
        compute_max_mantissa: nn.Module,
        scaling_impl: nn.Module,
        int_scaling_impl: nn.Module,
        rounding_impl: FormatRounding,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Take the rounding; the rest as Brevitas has it."""
        super().__init__(
            signed=signed,
            exponent_bit_width_impl=exponent_bit_width_impl,
            mantissa_bit_width_impl=mantissa_bit_width_impl,
            exponent_bias_impl=exponent_bias_impl,
            float_clamp_impl=float_clamp_impl,
            input_view_impl=input_view_impl,
            compute_max_mantissa=compute_max_mantissa,
            scaling_impl=scaling_impl,
            float_scaling_impl=int_scaling_impl,
            device=device,
            dtype=dtype,
        )
        self.int_scaling_impl = int_scaling_impl
        self.rounding_impl = rounding_impl
        self.float_to_int_impl = rounding_impl.float_to_int_impl or RoundSte()

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        """Return the values, their scale, and what Brevitas tells about a minifloat."""
        scale = _usable(self.scaling_impl(x, self.int_scaling_impl()))
        values = x if self.observer_only else self.rounding_impl(self.input_view_impl(x), scale)
        clamp = self.float_clamp_impl
        widths = self.exponent_bit_width_impl(), self.mantissa_bit_width_impl(), self.exponent_bias_impl()
        return values, scale, self.zero_point_impl(), *widths, clamp.saturating, clamp.inf_values, clamp.nan_values


class FormatQuant(nn.Module):
    """Scaled levels that are neither integers nor minifloats."""

    def __init__(
        self,
        scaling_impl: nn.Module,
        int_scaling_impl: nn.Module,
        rounding_impl: FormatRounding,
        bit_width_impl: nn.Module,
        input_view_impl: nn.Module,
    ) -> None:
        """Take the rounding, and Brevitas' scaling."""
        super().__init__()
        self.scaling_impl, self.int_scaling_impl, self.rounding_impl = scaling_impl, int_scaling_impl, rounding_impl
        self.bit_width_impl, self.input_view_impl = bit_width_impl, input_view_impl
        self.zero_point = StatelessBuffer(torch.tensor(0.0))
        #: set by Brevitas while it collects statistics
        self.observer_only = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the values, their scale, a zero point of 0, and the width of a code."""
        scale = _usable(self.scaling_impl(x, self.int_scaling_impl()))
        values = x if self.observer_only else self.rounding_impl(self.input_view_impl(x), scale)
        return values, scale, self.zero_point(), self.bit_width_impl()


class BlockQuant(nn.Module):
    """A block format along an axis: scales come from the values alone, so nothing is calibrated or learned."""

    def __init__(
        self,
        format_name: str,
        block_axis: int,
        bit_width_impl: nn.Module,
        input_view_impl: nn.Module,
        scaling_impl: nn.Module,
        int_scaling_impl: nn.Module,
    ) -> None:
        """Take the format's registered name and the axis.

        The two scaling modules are never called: Brevitas' graph passes compare them to tell which quantizers are aligned.
        """
        super().__init__()
        self.format_name, self.block_axis = format_name, block_axis
        self.bit_width_impl, self.input_view_impl = bit_width_impl, input_view_impl
        self.zero_point = StatelessBuffer(torch.tensor(0.0))
        self.scaling_impl, self.int_scaling_impl = scaling_impl, int_scaling_impl
        #: set by Brevitas while it collects statistics
        self.observer_only = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the values, the scale of each block, a zero point of 0, and the width of an element's code."""
        scales = operator.block_scales(x.detach(), self.format_name, self.block_axis)
        if self.observer_only:
            return x, scales, self.zero_point(), self.bit_width_impl()
        values = operator.quantize_blocks(x, self.format_name, self.block_axis).to(x.dtype)
        return values, scales, self.zero_point(), self.bit_width_impl()


def _usable(scale: Tensor) -> Tensor:
    """Keep a scale off zero, where a format that reaches far divides small statistics."""
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)
