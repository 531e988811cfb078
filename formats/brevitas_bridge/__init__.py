"""Every format as a Brevitas quantizer for weights and activations.

    from brevitas.nn import QuantLinear
    from formats import brevitas_bridge
    layer = QuantLinear(
        64, 10,
        weight_quant=brevitas_bridge.weight_quantizer("e2m1"),
        input_quant=brevitas_bridge.activation_quantizer("uint4"),
    )

What a quantizer gives for float32 is, bit for bit, ``formats.get(name).quantize(x, scale)`` with the scale that Brevitas
reports, and ``formats.get(name).quantize(x, axis)`` for a block format; in a layer of another dtype it is that, rounded to the
dtype. Scales, calibration, learning and graph passes are Brevitas' own. As quantized tensors, formats of integers give
``IntQuantTensor``, minifloats ``FloatQuantTensor`` (in groups, the groupwise ones), all others ``FormatQuantTensor``.

Needs Brevitas (``pip install bitatlas[brevitas]``); its TorchScript mode, ``BREVITAS_JIT=1``, cannot call the operators.
"""

import re
from typing import Any

from formats.block import BlockFormat
from formats.boundaries import DETERMINISTIC_ROUNDINGS
from formats.brevitas_bridge.fields import float_fields, integer_fields
from formats.errors import InvalidValueError, MissingPackageError
from formats.format import Format
from formats.names import unknown_name
from formats.registry import get

try:
    import brevitas.config
except ModuleNotFoundError as error:
    if error.name != "brevitas":
        raise
    raise MissingPackageError("brevitas", "formats.brevitas_bridge", extra="brevitas") from None
else:
    from brevitas.inject import ExtendedInjector

    from formats.brevitas_bridge import injectors as injectors
    from formats.brevitas_bridge.tensors import FormatQuantTensor

__all__ = ["FormatQuantTensor", "activation_quantizer", "weight_quantizer"]

SCALINGS = ("parameter", "statistics")


def weight_quantizer(
    name: str,
    *,
    granularity: str = "channel",
    choice: str = "absmax",
    scaling: str = "parameter",
    rounding: str = "nearest_even",
    axis: int | None = None,
) -> type[ExtendedInjector]:
    """Return what a Brevitas layer takes as ``weight_quant``.

    ``granularity`` is ``tensor``, ``channel`` (output channels) or ``group{n}`` (n neighbouring input channels). ``choice`` is
    ``absmax``, ``percentile{p}`` (p percent of the magnitudes are within the largest level) or ``mse`` (Brevitas' grid search).
    ``scaling`` is ``parameter``, chosen at the first pass and learnable from then on, or ``statistics``, following the weight.
    ``rounding`` is any deterministic one; learned rounding is Brevitas' to set (``float_to_int_impl_type``).

    A block format has scales of its own and takes none of these but ``axis``: the input channels' by default.
    ``.let(...)`` on the result changes what Brevitas' injectors have, such as ``restrict_scaling_type``.
    """
    fmt = _format(name)
    if isinstance(fmt, BlockFormat):
        _refuse_for_blocks(
            name, granularity=(granularity, "channel"), choice=(choice, "absmax"), rounding=(rounding, "nearest_even")
        )
        _refuse_for_blocks(name, scaling=(scaling, "parameter"))
        return _filled(injectors.BlockWeight, **_block_fields(fmt, axis))
    _refuse_axis(name, axis)
    if scaling not in SCALINGS:
        raise unknown_name("scaling", scaling, SCALINGS)
    base = (injectors.GROUPS if granularity.startswith("group") else injectors.WEIGHTS)[_kind(fmt)]
    if choice == "mse":
        base = injectors.searched(base)
    follows = scaling == "statistics"
    if follows and choice == "mse":
        raise InvalidValueError("scaling must be parameter where choice is mse, not statistics")
    fields = {"scaling_impl_type": "stats" if follows else "parameter_from_stats", "scale_follows": follows}
    return _filled(base, **_fields(fmt, rounding), **_granularity(granularity), **_statistics(choice), **fields)


def activation_quantizer(
    name: str, *, choice: str = "absmax", steps: int = 300, rounding: str = "nearest_even", axis: int | None = None
) -> type[ExtendedInjector]:
    """Return what a Brevitas layer takes as ``input_quant``, ``output_quant`` or ``act_quant``.

    One scale for the tensor. It follows the statistic ``choice`` (see ``weight_quantizer``) for the first ``steps`` passes in
    training mode, or all of them under ``calibration_mode``, whose average it then is; after that it is a parameter to learn.

    A block format has scales of its own, of every activation anew, and takes none of these but ``axis``. By default it is the
    layer's input channels: the last axis of a linear layer, axis 1 of a convolution; a layer without weights must be told.
    """
    fmt = _format(name)
    if isinstance(fmt, BlockFormat):
        _refuse_for_blocks(name, choice=(choice, "absmax"), steps=(steps, 300), rounding=(rounding, "nearest_even"))
        return _filled(injectors.BlockActivation, **_block_fields(fmt, axis))
    _refuse_axis(name, axis)
    if steps < 1:
        raise InvalidValueError(f"steps must be at least 1, not {steps}")
    base = injectors.ACTIVATIONS[_kind(fmt)]
    if choice == "mse":
        base = injectors.searched(base)
    return _filled(base, **_fields(fmt, rounding), **_granularity("tensor"), **_statistics(choice), collect_stats_steps=steps)


def _filled(base: Any, **fields: Any) -> type[ExtendedInjector]:
    filled: type[ExtendedInjector] = base.let(**fields)
    return filled


def _format(name: str) -> Format | BlockFormat:
    if brevitas.config.JIT_ENABLED:
        raise InvalidValueError("BREVITAS_JIT must be 0 for formats.brevitas_bridge, not 1: TorchScript cannot call its operators")
    return get(name)


def _kind(fmt: Format) -> str:
    if float_fields(fmt) is not None:
        return "float"
    if integer_fields(fmt) is None:
        return "other"
    return "binary" if fmt.bits == 1 and fmt.signed else "integer"


def _fields(fmt: Format, rounding: str) -> dict[str, Any]:
    """Return what the injectors need to know of a scalar format."""
    if rounding not in DETERMINISTIC_ROUNDINGS:
        raise unknown_name("rounding", rounding, DETERMINISTIC_ROUNDINGS)
    described = float_fields(fmt) or integer_fields(fmt) or {}
    return {"format_name": fmt.name, "rounding": rounding, "signed": fmt.signed, "bit_width": fmt.bits, **described}


def _block_fields(fmt: BlockFormat, axis: int | None) -> dict[str, Any]:
    given = {} if axis is None else {"block_axis": axis}
    return {"format_name": fmt.name, "signed": fmt.element.signed, "bit_width": fmt.bits, **given}


def _granularity(text: str) -> dict[str, Any]:
    if text in ("tensor", "channel"):
        return {"scaling_per_output_type": text}
    match = re.fullmatch("group([1-9][0-9]{0,4})", text)
    if match is None:
        raise unknown_name("granularity", text, ("tensor", "channel", "group32"))
    return {"scaling_per_output_type": "group", "group_size": int(match[1])}


def _statistics(text: str) -> dict[str, Any]:
    if text in ("absmax", "mse"):  # the search begins at the largest magnitude
        return {"scaling_stats_op": "max"}
    match = re.fullmatch(r"percentile([0-9]+(?:\.[0-9]+)?)", text)
    if match is None:
        raise unknown_name("scale choice", text, ("absmax", "percentile99.9", "mse"))
    if not 0 < float(match[1]) <= 100:
        raise InvalidValueError(f"percentile must be above 0 and at most 100, not {match[1]}")
    return {"scaling_stats_op": "percentile", "high_percentile_q": float(match[1])}


def _refuse_for_blocks(name: str, **given: tuple[Any, Any]) -> None:
    for what, (value, usual) in given.items():
        if value != usual:
            raise InvalidValueError(f"{what} must be left out for the block format {name}, not {value}")


def _refuse_axis(name: str, axis: int | None) -> None:
    if axis is not None:
        raise InvalidValueError(f"axis must be left out for {name}, whose codes stand alone, not {axis}")
