"""Other libraries that quantize and dequantize a float32 array in a format of ours; those that are installed.

Each rival is a function of (format name, array, scale, threads) that returns a call without arguments, or None where the library
lacks the format. What the call returns is the quantized array.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import formats
from formats import BlockFormat

Call = Callable[[], Any]
Rival = Callable[[str, NDArray[np.float32], float, int], Call | None]


def _integer_range(name: str) -> tuple[int, int] | None:
    fmt = formats.get(name)
    if isinstance(fmt, BlockFormat) or fmt.closed_form is None or fmt.closed_form.kind != "uniform" or fmt.bits > 8:
        return None
    return int(fmt.minimum), int(fmt.maximum)


def _fields(name: str) -> tuple[int, int, float] | None:
    """Exponent bits, mantissa bits and largest value of a signed minifloat of at most 8 bits."""
    fmt = formats.get(name)
    if isinstance(fmt, BlockFormat) or fmt.closed_form is None or fmt.closed_form.kind != "floating":
        return None
    if fmt.bits > 8 or not fmt.signed or fmt.negative_zero is None:
        return None
    return fmt.bits - 1 - fmt.closed_form.mantissa_bits, fmt.closed_form.mantissa_bits, fmt.maximum


def of_torch(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    tensor, ends = torch.from_numpy(x), _integer_range(name)
    if ends is not None:
        return lambda: torch.fake_quantize_per_tensor_affine(tensor, scale, 0, *ends)
    dtype = getattr(torch, name, None) if name.startswith(("float8_", "bfloat16", "float16")) else None
    return None if dtype is None else lambda: (tensor / scale).to(dtype).to(torch.float32) * scale


def of_onnxruntime(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    import onnxruntime
    from onnx import TensorProto, helper

    types = {"int8": "INT8", "uint8": "UINT8", "int4": "INT4", "uint4": "UINT4"}
    casts = {"float8_e4m3fn": "FLOAT8E4M3FN", "float8_e5m2": "FLOAT8E5M2", "bfloat16": "BFLOAT16", "float16": "FLOAT16"}
    if name not in types and name not in casts:
        return None
    kind = getattr(TensorProto, types.get(name) or casts[name])
    zeros = [helper.make_tensor("z", kind, (), [0])]
    scales = [helper.make_tensor("s", TensorProto.FLOAT, (), [scale])]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    if name in casts:
        cast = helper.make_node("Cast", ["d"], ["c"], to=kind)
        back = helper.make_node("Cast", ["c"], ["b"], to=TensorProto.FLOAT)
        nodes = [helper.make_node("Div", ["x", "s"], ["d"]), cast, back, helper.make_node("Mul", ["b", "s"], ["y"])]
        zeros = []
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, x.shape) for end in ("x", "y")]
    graph = helper.make_graph(nodes, "q", ends[:1], ends[1:], scales + zeros)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def of_ml_dtypes(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    import ml_dtypes

    names = {"e2m1": "float4_e2m1fn", "e3m2": "float6_e3m2fn", "e2m3": "float6_e2m3fn"}
    dtype = getattr(ml_dtypes, names.get(name, name), None)
    if dtype is None or _integer_range(name) is not None:
        return None
    return lambda: (x / np.float32(scale)).astype(dtype).astype(np.float32) * np.float32(scale)


def of_brevitas(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    from brevitas.nn import QuantIdentity
    from brevitas.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
    from brevitas.quant.experimental.float import Fp8e4m3ActPerTensorFloat

    tensor, ends, fields, fmt = torch.from_numpy(x), _integer_range(name), _fields(name), formats.get(name)
    constant: dict[str, Any] = {"scaling_impl_type": "const", "return_quant_tensor": False}
    if ends is not None and not isinstance(fmt, BlockFormat) and not fmt.unused:
        base = Int8ActPerTensorFloat if fmt.signed else Uint8ActPerTensorFloat
        module = QuantIdentity(act_quant=base, bit_width=fmt.bits, scaling_init=scale * ends[1], **constant)
    elif fields is not None and not fmt.nan:  # type: ignore[union-attr]
        exponent, mantissa, largest = fields
        module = QuantIdentity(
            act_quant=Fp8e4m3ActPerTensorFloat,
            bit_width=1 + exponent + mantissa,
            exponent_bit_width=exponent,
            mantissa_bit_width=mantissa,
            scaling_init=scale * largest,
            **constant,
        )
    else:
        return None
    module = module.eval()
    return lambda: module(tensor)


def of_qonnx(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    from qonnx.custom_op.general.floatquant import float_quant
    from qonnx.custom_op.general.quant import quant

    ends, fields, fmt = _integer_range(name), _fields(name), formats.get(name)
    step = np.float32(scale)
    if ends is not None and not isinstance(fmt, BlockFormat):
        signed, narrow = fmt.signed, ends[0] == -ends[1]
        zero, bits = np.float32(0), np.float32(fmt.bits)
        return lambda: quant(x, step, zero, bits, signed, narrow, "ROUND")
    if fields is not None:
        exponent, mantissa, largest = fields
        bias = np.float32(2 ** (exponent - 1) - 1)
        return lambda: float_quant(x, step, np.float32(exponent), np.float32(mantissa), bias, True, np.float32(largest))
    return None


def of_torchao(name: str, x: NDArray[np.float32], scale: float, threads: int) -> Call | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked, _floatx_unpacked_to_f32
        from torchao.prototype.mx_formats.mx_tensor import MXTensor
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor
        from torchao.quantization.quant_primitives import _fake_quantize_affine

    tensor, ends, fields = torch.from_numpy(x), _integer_range(name), _fields(name)
    elements = {"mxfp4": torch.float4_e2m1fn_x2, "mxfp8_e4m3": torch.float8_e4m3fn, "mxfp8_e5m2": torch.float8_e5m2}
    if name in elements:
        return lambda: MXTensor.to_mx(tensor, elements[name], 32).dequantize(torch.float32)
    if name == "nvfp4":
        largest = tensor.abs().max() / (6 * 448)
        return lambda: NVFP4Tensor.to_nvfp4(tensor, per_tensor_scale=largest).dequantize(torch.float32)
    if ends is not None:
        scales, zero = torch.tensor([scale]), torch.tensor([0], dtype=torch.int32)
        return lambda: _fake_quantize_affine(tensor, tuple(tensor.shape), scales, zero, torch.int32, *ends)
    if fields is not None and not formats.get(name).nan:  # type: ignore[union-attr]
        exponent, mantissa, _ = fields
        return lambda: (
            _floatx_unpacked_to_f32(_f32_to_floatx_unpacked(tensor / scale, exponent, mantissa), exponent, mantissa) * scale
        )
    return None


RIVALS: dict[str, Rival] = {
    "torch": of_torch,
    "onnxruntime": of_onnxruntime,
    "ml_dtypes": of_ml_dtypes,
    "brevitas": of_brevitas,
    "qonnx": of_qonnx,
    "torchao": of_torchao,
}


def installed(name: str, x: NDArray[np.float32], scale: float, threads: int) -> dict[str, Call]:
    """Return the calls of all rivals that are installed and have the format."""
    calls = {}
    for rival, build in RIVALS.items():
        try:
            call = build(name, x, scale, threads)
        except ImportError:
            continue
        if call is not None:
            calls[rival] = call
    return calls
