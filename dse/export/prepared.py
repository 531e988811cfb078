"""A layer's weight as it is stored: codes, and the factors that steps may leave beside them."""

from collections.abc import Callable, Iterator

from dse.export.layout import whole_numbers
from dse.export.lowering import Parts
from dse.network import Layer
from dse.ptq.step import PreparedWeight
from dse.quantize import StoredWeight
from formats.tensor_quantizer import EncodedTensor

#: (encoded tensor, prefix for names, name of the output, parts): adds nodes that decode it, to float32 in its own shape
LowerTensor = Callable[[EncodedTensor, str, str, Parts], None]


def encoded_tensors(prepared: PreparedWeight) -> Iterator[EncodedTensor]:
    """Yield every encoded tensor that a weight is made of."""
    yield prepared.encoded
    if prepared.low_rank is not None:
        yield from (prepared.low_rank.left, prepared.low_rank.right)


def lower_weight(layer: Layer, stored: StoredWeight, output: str, parts: Parts, lower_tensor: LowerTensor) -> None:
    """Add nodes that decode a weight, and add the product of its factors where it has some.

    The product is summed in the runtime's order, so that such a weight may differ from the emulator's in the last bit.
    """
    prepared, prefix = stored.prepared, f"{layer.name}/weight"
    if prepared.low_rank is None:
        lower_tensor(prepared.encoded, prefix, output, parts)
        return
    lower_tensor(prepared.encoded, prefix, f"{prefix}/decoded", parts)
    lower_tensor(prepared.low_rank.left, f"{prefix}/left", f"{prefix}/left/decoded", parts)
    lower_tensor(prepared.low_rank.right, f"{prefix}/right", f"{prefix}/right/decoded", parts)
    product = parts.add("MatMul", [f"{prefix}/left/decoded", f"{prefix}/right/decoded"], f"{prefix}/product")
    shape = whole_numbers(f"{prefix}/shape", list(prepared.encoded.shape), parts)
    parts.add("Add", [f"{prefix}/decoded", parts.add("Reshape", [product, shape], f"{prefix}/shaped")], output)
