"""Quantized tensors that Brevitas has no class for, and the proxies that make them; imported by ``brevitas_bridge`` alone."""

from typing import Any, NamedTuple

import torch
from brevitas.proxy.groupwise_int_parameter_quant import GroupwiseWeightQuantProxyFromInjector
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from brevitas.quant_tensor import QuantTensor, _unpack_quant_tensor
from brevitas.quant_tensor.torch_handler import QUANT_TENSOR_FN_HANDLER
from brevitas.utils.quant_utils import groupwise_dequant_expand
from torch import Tensor


class _Fields(NamedTuple):
    value: Tensor
    scale: Tensor
    zero_point: Tensor
    bit_width: Tensor
    signed_t: Tensor
    training_t: Tensor
    format_name: str


class FormatQuantTensor(_Fields, QuantTensor):
    """Values of a format that is neither one of integers nor a minifloat, with their scale.

    ``scale`` broadcasts against ``value``; that of a block format has one entry for each block. Functions that move values
    keep the class where one scale is shared by all of them; everything else returns a plain tensor.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func`` with the values, or Brevitas' handler where values keep their scale."""
        kwargs = kwargs or {}
        if func in QUANT_TENSOR_FN_HANDLER and isinstance(args[0], FormatQuantTensor) and args[0].scale.numel() == 1:
            return QUANT_TENSOR_FN_HANDLER[func](*args, **kwargs)
        return func(*_unpack_quant_tensor(args), **_unpack_quant_tensor(kwargs))

    @property
    def tensor(self) -> Tensor:
        """The values."""
        return self.value

    @property
    def signed(self) -> bool:
        """Whether the format has negative values."""
        return bool(self.signed_t.item())

    @property
    def training(self) -> bool:
        """Whether the quantizer was in training mode."""
        return bool(self.training_t.item())

    @property
    def device(self) -> torch.device:
        """Where the values lie."""
        return self.value.device

    def view(self, *shape: Any) -> Any:
        """Return the values in another shape."""
        return self._moved(self.value.view(*shape))

    def reshape(self, *shape: Any) -> Any:
        """Return the values in another shape."""
        return self._moved(self.value.reshape(*shape))

    def flatten(self, *axes: Any, **named: Any) -> Any:
        """Return the values with axes merged."""
        return self._moved(self.value.flatten(*axes, **named))

    def transpose(self, *axes: Any) -> Any:
        """Return the values with two axes exchanged."""
        return self._moved(self.value.transpose(*axes))

    def permute(self, *axes: Any) -> Any:
        """Return the values with axes reordered."""
        return self._moved(self.value.permute(*axes))

    def _moved(self, value: Tensor) -> Any:
        return self.set(value=value) if self.scale.numel() == 1 else value

    # without these a tuple would be joined or repeated
    def __add__(self, other: Any) -> Any:
        """Return the sum of the values, a plain tensor."""
        return self.value + _unpack_quant_tensor(other)

    def __mul__(self, other: Any) -> Any:
        """Return the product of the values, a plain tensor."""
        return self.value * _unpack_quant_tensor(other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        """Return the quotient of the values, a plain tensor."""
        return self.value / _unpack_quant_tensor(other)

    def __sub__(self, other: Any) -> Any:
        """Return the difference of the values, a plain tensor."""
        return self.value - _unpack_quant_tensor(other)

    def __neg__(self) -> Any:
        """Return the negated values, a plain tensor."""
        return -self.value


class AsAlways:
    """Tells Brevitas to quantize as always in its inference mode, where it knows no shortcut, or for one bit a wrong one."""

    @property
    def requires_export_handler(self) -> bool:
        """Nothing takes the place of quantizing."""
        return False


class BinaryWeightProxy(AsAlways, WeightQuantProxyFromInjector):
    """Makes Brevitas' binary ``IntQuantTensor`` of a layer's weight."""


class BinaryGroupsProxy(AsAlways, GroupwiseWeightQuantProxyFromInjector):
    """As above, by groups."""


class BinaryActivationProxy(AsAlways, ActQuantProxyFromInjector):
    """Makes Brevitas' binary ``IntQuantTensor`` of an activation."""


class WeightProxy(AsAlways, WeightQuantProxyFromInjector):
    """Makes a ``FormatQuantTensor`` of a layer's weight."""

    @property
    def input_view_impl(self) -> Any:
        """How Brevitas views the weight before quantizing."""
        return self.tensor_quant.input_view_impl

    def create_quant_tensor(self, qt_args: tuple[Any, ...]) -> Any:
        """Wrap what the quantizer returned."""
        return _wrapped(self, qt_args)


class GroupWeightProxy(WeightProxy):
    """As above, where groups of a weight's input channels share a scale: values come grouped, and leave as they were."""

    def create_quant_tensor(self, qt_args: tuple[Any, ...]) -> Any:
        """Undo the grouping, and give every element its scale."""
        grouped, scale, zero_point, bit_width = qt_args
        axis, shape = self.quant_injector.group_dim, self.tracked_parameter_list[0].shape
        value, scale, _ = groupwise_dequant_expand(grouped, scale, zero_point, axis, shape)
        return _wrapped(self, (value, scale, zero_point, bit_width))


class BlockWeightProxy(WeightProxy):
    """As above, for a block format."""

    @property
    def is_groupwise(self) -> bool:
        """Tells Brevitas that a part of the weight cannot be quantized on its own."""
        return True


class ActivationProxy(AsAlways, ActQuantProxyFromInjector):
    """Makes a ``FormatQuantTensor`` of an activation."""

    @property
    def input_view_impl(self) -> Any:
        """How Brevitas views the activation before quantizing."""
        return self.fused_activation_quant_proxy.tensor_quant.input_view_impl

    def create_quant_tensor(self, qt_args: Any, x: Any) -> Any:
        """Wrap what the quantizer returned, or, where quantizing is disabled, the activation with what ``x`` tells of it."""
        return _wrapped(self, qt_args) if isinstance(qt_args, tuple) else x.set(value=qt_args)


class BlockActivationProxy(ActivationProxy):
    """As above, for a block format."""

    @property
    def is_groupwise(self) -> bool:
        """Tells Brevitas that elements of an axis share scales."""
        return True

    def scale(self, force_eval: bool = True) -> Any:
        """Raise: every activation has scales of its own."""
        raise RuntimeError(f"scale of {self.quant_injector.format_name} must be read off a quantized activation: it has no other")

    def zero_point(self, force_eval: bool = True) -> Tensor:
        """Return 0."""
        return torch.tensor(0.0)

    def bit_width(self, force_eval: bool = True) -> Tensor:
        """Return the width of an element's code."""
        return torch.tensor(float(self.quant_injector.bit_width))


def _wrapped(proxy: Any, fields: tuple[Any, ...]) -> FormatQuantTensor:
    value, scale, zero_point, bit_width = fields
    signed, training = torch.tensor(bool(proxy.is_signed)), torch.tensor(bool(proxy.training))
    return FormatQuantTensor(value, scale, zero_point, bit_width, signed, training, proxy.quant_injector.format_name)
