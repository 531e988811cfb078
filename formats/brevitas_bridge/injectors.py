"""How Brevitas puts quantizers together for each kind of format; imported by ``brevitas_bridge`` alone, which fills them in.

An injector's attributes are arguments to be: of Brevitas' modules and of those in ``modules``, by name.
"""

from typing import Any

from brevitas.core.bit_width import BitWidthConst
from brevitas.core.bit_width.float import StaticExponentBias
from brevitas.core.function_wrapper import FloatClamp, Identity, TensorClamp
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector, value
from brevitas.inject.enum import BitWidthImplType, FloatToIntImplType, QuantType, RestrictValueType, ScalingImplType
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.proxy.float_parameter_quant import WeightFloatQuantProxyFromInjector
from brevitas.proxy.float_runtime_quant import ActFloatQuantProxyFromInjector
from brevitas.proxy.groupwise_float_parameter_quant import GroupwiseWeightFloatQuantProxyFromInjector
from brevitas.proxy.groupwise_int_parameter_quant import GroupwiseWeightQuantProxyFromInjector
from brevitas.quant.base import MSESymmetricScale
from brevitas.quant.solver import ActQuantSolver, WeightQuantSolver
from brevitas.quant.solver.common import SolveFloatBitWidthImplFromEnum
from torch import nn

from formats.brevitas_bridge import modules as modules
from formats.brevitas_bridge import tensors as tensors
from formats.errors import InvalidValueError


class Scaled(ExtendedInjector):
    """What all scalar formats share."""

    float_to_int_impl_type = FloatToIntImplType.ROUND
    bit_width_impl_type = BitWidthImplType.CONST
    restrict_scaling_type = RestrictValueType.FP
    scaling_min_val = 1e-10
    int_scaling_impl = modules.LargestLevel
    rounding_impl = modules.FormatRounding


class Integers(Scaled):
    """Formats of integers."""

    quant_type = QuantType.INT
    tensor_quant = modules.FormatRescalingQuant
    int_quant = modules.FormatIntQuant
    zero_point_impl = ZeroZeroPoint


class Floats(Scaled, SolveFloatBitWidthImplFromEnum):
    """Minifloats."""

    tensor_quant = modules.FormatFloatQuant
    exponent_bit_width_impl_type = BitWidthImplType.CONST
    mantissa_bit_width_impl_type = BitWidthImplType.CONST
    exponent_bias_impl = StaticExponentBias
    float_clamp_impl = FloatClamp
    tensor_clamp_impl = TensorClamp
    saturating = True


class Others(Scaled):
    """Formats that are neither."""

    tensor_quant = modules.FormatQuant


class IntWeight(Integers, WeightQuantSolver):
    """A weight in integers."""


class BinaryWeight(IntWeight):
    """A weight of -1 and +1."""

    proxy_class = tensors.BinaryWeightProxy


class FloatWeight(Floats, WeightQuantSolver):
    """A weight in minifloats."""

    proxy_class = WeightFloatQuantProxyFromInjector


class OtherWeight(Others, WeightQuantSolver):
    """A weight in other levels."""

    proxy_class = tensors.WeightProxy


class IntGroups(IntWeight):
    """A weight in integers, by groups."""

    proxy_class = GroupwiseWeightQuantProxyFromInjector


class BinaryGroups(IntWeight):
    """A weight of -1 and +1, by groups."""

    proxy_class = tensors.BinaryGroupsProxy


class FloatGroups(FloatWeight):
    """A weight in minifloats, by groups."""

    proxy_class = GroupwiseWeightFloatQuantProxyFromInjector


class OtherGroups(OtherWeight):
    """A weight in other levels, by groups."""

    proxy_class = tensors.GroupWeightProxy


class Calibrated(ExtendedInjector):
    """An activation's scale: the average of statistics, then a parameter."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS


class IntActivation(Integers, Calibrated, ActQuantSolver):
    """An activation in integers."""


class BinaryActivation(IntActivation):
    """An activation of -1 and +1."""

    proxy_class = tensors.BinaryActivationProxy


class FloatActivation(Floats, Calibrated, ActQuantSolver):
    """An activation in minifloats."""

    proxy_class = ActFloatQuantProxyFromInjector


class OtherActivation(Others, Calibrated, ActQuantSolver):
    """An activation in other levels."""

    proxy_class = tensors.ActivationProxy


class Blocks(ExtendedInjector):
    """What block formats share."""

    tensor_quant = modules.BlockQuant
    bit_width_impl = BitWidthConst
    input_view_impl = Identity
    scaling_impl = Identity
    int_scaling_impl = Identity


class BlockWeight(Blocks):
    """A weight in a block format, along its input channels."""

    proxy_class = tensors.BlockWeightProxy

    @value
    def block_axis(module):  # type: ignore[no-untyped-def]  # noqa: N805, D102
        first = module[0] if isinstance(module, tuple) else module
        return 0 if getattr(first, "transposed", False) else 1


class BlockActivation(Blocks):
    """An activation in a block format, along the layer's input channels."""

    proxy_class = tensors.BlockActivationProxy

    @value
    def block_axis(module, format_name):  # type: ignore[no-untyped-def]  # noqa: N805, D102
        first = module[0] if isinstance(module, tuple) else module
        if not isinstance(first, QuantWeightBiasInputOutputLayer):
            raise InvalidValueError(
                f"axis of {format_name} must be given for {type(first).__name__}, which has no weight to tell it"
            )
        return -1 if isinstance(first, nn.Linear) else 1


def searched(base: Any) -> type[ExtendedInjector]:
    """Return ``base`` with Brevitas' search for the scale of least squared error."""

    class Searched(MSESymmetricScale, base):  # type: ignore[misc]
        """A scale found by search."""

    return Searched


WEIGHTS = {"integer": IntWeight, "binary": BinaryWeight, "float": FloatWeight, "other": OtherWeight}
GROUPS = {"integer": IntGroups, "binary": BinaryGroups, "float": FloatGroups, "other": OtherGroups}
ACTIVATIONS = {"integer": IntActivation, "binary": BinaryActivation, "float": FloatActivation, "other": OtherActivation}
