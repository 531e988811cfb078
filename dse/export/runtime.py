"""Run an exported model by onnxruntime and hold its answers against the emulator's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from formats.errors import BitatlasError

#: share of samples on which the predictions may differ: sums in another order move a value across a rounding boundary now and then
TOLERANCE = 0.005


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On how many samples two programs predict the same class, and how far their logits are apart at most."""

    samples: int
    equal: int
    largest_difference: float

    @property
    def differing_share(self) -> float:
        """Share of samples with another prediction."""
        return 1 - self.equal / self.samples

    def __str__(self) -> str:
        """Return one line for people."""
        return (
            f"predictions equal on {self.equal} of {self.samples} samples, "
            f"largest difference of a logit {self.largest_difference:.3g}"
        )


def obstacle(model: onnx.ModelProto) -> str:
    """Return why onnxruntime cannot run a model on a processor, "" where it can as far as is known."""
    own = {function.domain for function in model.functions}
    domains = {imported.domain for imported in model.opset_import} - own - {""}
    if domains:
        return f"onnxruntime has no operators of {', '.join(sorted(domains))}"
    if any(tensor.data_type == onnx.TensorProto.FLOAT4E2M1 for tensor in model.graph.initializer):
        return "onnxruntime has no kernels for FLOAT4E2M1"
    return ""


def run(model: Path | bytes, images: NDArray[np.float32], batch: int = 64, *, optimized: bool = True) -> NDArray[np.float32]:
    """Run the model on (N, …) samples and return its logits, float32 of shape (N, classes).

    Integer kernels are not put in the place of the graph's own operators (``disable_quant_qdq``): they sum to other roundings.
    """
    made = session(model, optimized=optimized)
    name = made.get_inputs()[0].name
    return np.concatenate([made.run(None, {name: images[i : i + batch]})[0] for i in range(0, len(images), batch)])


def session(model: Path | bytes, *, optimized: bool = True) -> Any:
    """Return a session of onnxruntime on the processor; see ``run``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimized:  # some optimizations change results: a ReLU before a float8 QuantizeLinear is left out
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def compare(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> Agreement:
    """Compare two sets of logits of the same samples."""
    return Agreement(
        samples=len(logits),
        equal=int((logits.argmax(axis=1) == reference.argmax(axis=1)).sum()),
        largest_difference=float(np.abs(logits - reference).max()),
    )


def check(agreement: Agreement, where: str) -> None:
    """Raise where the predictions differ on more than one sample, and on more than ``TOLERANCE`` allows."""
    if agreement.samples - agreement.equal > max(1, TOLERANCE * agreement.samples):
        raise BitatlasError(
            f"predictions of the exported model must differ on at most {TOLERANCE:.1%} of samples, "
            f"not {agreement.differing_share:.2%} ({agreement}): {where}"
        )
