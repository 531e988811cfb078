"""Trained weights as safetensors: written whole, read with checks, never unpickled."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from formats.errors import BitatlasError, InvalidValueError
from hwmodels.files import replaced

#: safetensors keeps its entries in no order; as one entry of JSON, equal weights make equal files
METADATA = "bitatlas"


def save(module: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the module's state (parameters and buffers) and its text metadata to ``path``."""
    from safetensors.torch import save_file

    state = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
    with replaced(path) as temporary:
        save_file(state, temporary, metadata={METADATA: json.dumps(dict(metadata))})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read every tensor and the metadata of a safetensors file; a corrupt or missing one is an error that names it."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise BitatlasError(f"weights file must exist, not be missing: {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = json.loads((opened.metadata() or {}).get(METADATA, "{}"))
            if not isinstance(metadata, dict):
                raise InvalidValueError(f"metadata of a weights file must be a table, not {type(metadata).__name__}: {path}")
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InvalidValueError(f"weights file must be whole safetensors, not a corrupt one ({error}): {path}") from None


def load_into(module: nn.Module, path: Path) -> dict[str, str]:
    """Load ``path`` into ``module`` and return the metadata; names, shapes, dtypes and finiteness must fit."""
    state, metadata = read(path)
    expected = module.state_dict()
    for name in expected.keys() | state.keys():
        _check_tensor(name, expected.get(name), state.get(name), path)
    module.load_state_dict(state)
    return metadata


def _check_tensor(name: str, expected: Tensor | None, found: Tensor | None, path: Path) -> None:
    if found is None:
        raise InvalidValueError(f"weights file must hold the tensor {name!r}, not lack it: {path}")
    if expected is None:
        raise InvalidValueError(f"weights file must hold only the model's tensors, not {name!r}: {path}")
    if found.shape != expected.shape or found.dtype != expected.dtype:
        wanted, got = f"{tuple(expected.shape)} {expected.dtype}", f"{tuple(found.shape)} {found.dtype}"
        raise InvalidValueError(f"tensor {name!r} must be {wanted}, not {got}: {path}")
    if not torch.isfinite(found).all():
        raise InvalidValueError(f"tensor {name!r} must be finite, not NaN or Inf: {path}")
