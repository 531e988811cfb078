"""Where an operator of an exported graph stands, for messages."""

from collections.abc import Mapping

import onnx


def place(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], names: set[str]) -> str:
    """Return the layer that a node is, or the nearest one before it."""
    if node.name in names:
        return f"layer {node.name!r}"
    waiting, seen = list(node.input), set()
    while waiting:
        name = waiting.pop(0)
        producer = producers.get(name)
        if producer is None or name in seen:
            continue
        seen.add(name)
        if producer.name in names:
            return f"behind layer {producer.name!r}"
        waiting += producer.input
    return "before the first layer"
