"""Number formats for low-bit networks: exact definitions, and encoders that agree with them bit for bit.

>>> import formats, numpy as np
>>> f = formats.get("e2m1")
>>> f.values[:8]
array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
>>> f.quantize(np.float32([0.3, 2.5, -9]))
array([ 0.5,  2. , -6. ], dtype=float32)
"""

from formats import methods as methods  # makes the methods' names known
from formats.arithmetic.accumulator import Accumulator
from formats.arithmetic.convolution import convolve2d
from formats.arithmetic.matmul import matmul
from formats.arithmetic.requantize import quantize_multiplier, requantize, requantize_by_shift
from formats.arithmetic.results import Result
from formats.arithmetic.width import bound_bits, required_bits
from formats.block import BlockFormat, BlockScales
from formats.definition import ClosedForm, Spacing
from formats.errors import BitatlasError, InvalidTypeError, InvalidValueError, UnknownNameError
from formats.format import Format
from formats.method import method_names
from formats.packing import pack, unpack
from formats.quantizer import Quantizer
from formats.registry import Family, get, names, register, scalar
from formats.tensor_quantizer import EncodedTensor, StorageBits, TensorQuantizer
from formats.threads import set_thread_count, thread_count

__all__ = [
    "Accumulator",
    "BitatlasError",
    "BlockFormat",
    "BlockScales",
    "ClosedForm",
    "EncodedTensor",
    "Family",
    "Format",
    "InvalidTypeError",
    "InvalidValueError",
    "Quantizer",
    "Result",
    "Spacing",
    "StorageBits",
    "TensorQuantizer",
    "UnknownNameError",
    "bound_bits",
    "convolve2d",
    "get",
    "matmul",
    "method_names",
    "names",
    "pack",
    "quantize_multiplier",
    "register",
    "requantize",
    "requantize_by_shift",
    "required_bits",
    "scalar",
    "set_thread_count",
    "thread_count",
    "unpack",
]
