"""What quantizers mean: a name that a user registered may come to mean something else."""

import hashlib
from collections.abc import Iterable

from formats.tensor_quantizer import TensorQuantizer


def definitions(quantizers: Iterable[TensorQuantizer]) -> str:
    """Return the SHA-256 over the formats of some quantizers, in the order in which they are first met."""
    digest = hashlib.sha256()
    for fmt in {fmt.name: fmt for quantizer in quantizers for fmt in quantizer.formats}.values():
        digest.update(f"{fmt.name} {fmt.spacing} {fmt.closed_form}".encode())
        digest.update(fmt.values.tobytes())
    return digest.hexdigest()
