"""An ONNX file, whole and readable, or one line that says what is wrong with it."""

from pathlib import Path

import onnx
from onnx import external_data_helper

from formats.errors import BitatlasError, InvalidValueError

#: opsets of ONNX' own operators whose meaning ``dse.imports.operators`` follows
LOWEST_OPSET = 13


def read(path: Path) -> onnx.ModelProto:
    """Return the model in a file, with the tensors that lie in files beside it; stored tensors are not among its inputs.

    Raises ``BitatlasError`` for a file that cannot be read, is no ONNX model or was cut short, for a missing file of tensors and
    for operator sets outside of what is known.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BitatlasError(f"file must be readable, not fail ({error.strerror}): {path}") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's own types
        raise InvalidValueError(f"file must be a whole ONNX model, not another kind of file or one cut short: {path}") from None
    if not model.graph.node or not model.graph.output or not model.ir_version:
        raise InvalidValueError(f"file must hold an ONNX model with operators and outputs, not lack them: {path}")
    _check_opset(model, path)
    _load_external(model, path)
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX' own operators that the model names."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    found, highest = opset(model), onnx.defs.onnx_opset_version()
    if not LOWEST_OPSET <= found <= highest:
        raise InvalidValueError(f"opset of an ONNX model must be {LOWEST_OPSET} to {highest}, not {found}: {path}")


def _load_external(model: onnx.ModelProto, path: Path) -> None:
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        cause = str(error).strip().splitlines()[0][:200]
        raise BitatlasError(f"tensors beside an ONNX model must be readable, not fail ({cause}): {path}") from None
