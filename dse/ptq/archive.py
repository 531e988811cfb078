"""Prepared weights on disk: trees of frozen dataclasses, named tuples and arrays in one file that cannot run code."""

import importlib
import io
import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from formats.errors import BitatlasError
from hwmodels.files import replaced

#: where the classes come from that a file may name
PACKAGES = ("formats.", "dse.ptq.")
_TREE = "tree"


def write(path: Path, value: object, name: str = "") -> None:
    """Write a tree of dataclasses, named tuples, tuples, arrays, numbers, texts and None, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    tree = json.dumps({"name": name, "value": _described(value, arrays)})
    made = io.BytesIO()
    np.savez(made, allow_pickle=False, **{_TREE: np.array(tree)}, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as temporary:
        temporary.write_bytes(made.getvalue())


def read(path: Path, name: str = "") -> Any:
    """Return what was written under a name; ``BitatlasError`` names a file that is broken or holds something else."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
        tree = json.loads(str(arrays.pop(_TREE)))
        if tree["name"] != name:
            raise ValueError(f"it holds {tree['name']!r}")
        return _made(tree["value"], arrays)
    except Exception as error:  # a flipped bit may surface anywhere in zip, numpy or JSON
        raise BitatlasError(f"prepared weight must be a whole file, not broken ({error}): {path}; remove it") from None


def _described(value: object, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[f"array_{len(arrays)}"] = value
        return {"array": f"array_{len(arrays) - 1}"}
    kind = type(value)
    if _is_record(kind):
        names = kind._fields if issubclass(kind, tuple) else [item.name for item in fields(kind) if item.init]  # type: ignore[arg-type,attr-defined]
        held = {name: _described(getattr(value, name), arrays) for name in names}
        return {"class": [kind.__module__, kind.__qualname__], "fields": held}
    if isinstance(value, tuple):
        return {"tuple": [_described(item, arrays) for item in value]}
    if isinstance(value, frozenset):
        return {"set": [_described(item, arrays) for item in sorted(value)]}
    if isinstance(value, np.generic):
        return {"scalar": _described(np.asarray(value), arrays)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"value of a prepared weight must be data, not {type(value).__name__}")


def _made(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "scalar" in tree:
        return _made(tree["scalar"], arrays)[()]
    if "tuple" in tree:
        return tuple(_made(item, arrays) for item in tree["tuple"])
    if "set" in tree:
        return frozenset(_made(item, arrays) for item in tree["set"])
    module, name = tree["class"]
    if not module.startswith(PACKAGES):
        raise ValueError(f"class must be of {' or '.join(PACKAGES)}, not {module}.{name}")
    kind = getattr(importlib.import_module(module), name)
    if not _is_record(kind):
        raise ValueError(f"class must be a dataclass or a named tuple, not {module}.{name}")
    return kind(**{label: _made(item, arrays) for label, item in tree["fields"].items()})


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")))
