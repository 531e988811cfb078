"""The graph of an export: the float network with its slots replaced by what targets make of them, checked."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx
from onnx import helper

from dse.assignment import Assignment
from dse.export import choosing, neutral
from dse.export.lowering import Lowering, Parts
from dse.network import Filling, Fillings, Network, Role
from dse.quantize import ActivationQuantizer, Preparation, StoredWeight
from formats.errors import BitatlasError

#: the version of ONNX' operators where no operand needs a later one
LOWEST_OPSET = 19


#: (model, network, assignment, fillings), under the names that the model's nodes have: completes the model in place
Finish = Callable[[onnx.ModelProto, Network, Assignment, Fillings], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Renamed:
    """What is exported, under names that every tool takes."""

    network: Network
    assignment: Assignment
    fillings: Fillings


@dataclass(frozen=True, kw_only=True)
class _Lowered:
    """An operand's nodes, made before the graph they go into: ``source`` stands for the name that they read."""

    filling: Filling
    parts: Parts
    source: str
    output: str


def build(
    preparation: Preparation,
    assignment: Assignment,
    sample_shape: tuple[int, ...],
    lowerings: Sequence[Lowering],
    properties: Mapping[str, str],
    others: Sequence[Lowering] = (),
    finishing: Mapping[str, Finish] = MappingProxyType({}),
) -> onnx.ModelProto:
    """Return the checked model of an assignment: ``images`` (batch, …) float32 to ``logits`` (batch, classes).

    Each operand is written by the first of ``lowerings`` that can, at the lowest version of ONNX' operators that has all that is
    used. Raises ``ValueError`` where none can, before any weight is prepared if quantizers alone tell, naming the layer and those
    of ``others`` that could. ``properties`` become the model's, beside ``bitatlas.written_by`` (the target of every operand) and
    ``bitatlas.names`` (how the names of a layer's nodes begin). ``finishing`` says, by the name of a target that wrote an operand,
    what completes the graph before it is checked.
    """
    choosing.refuse_early(preparation, assignment, lowerings, others)
    preparation = preparation.after(assignment.steps)
    network, fillings = preparation.network, preparation.fillings(assignment)
    choice = choosing.choose(network, fillings, lowerings, others)
    names = clean_names(layer.name for layer in network.layers)
    renamed = _renamed(network, assignment, fillings, names)
    lowered = {(names[layer], role): _lower(renamed, names[layer], role, way) for (layer, role), way in choice.items()}
    opset = max([LOWEST_OPSET, *(one.parts.opsets.get("", 0) for one in lowered.values())])
    model = neutral.export(renamed.network, sample_shape, renamed.fillings, opset)
    _put_in(model, lowered, opset)
    for name in sorted({way.name for way in choice.values()} & set(finishing)):
        finishing[name](model, renamed.network, renamed.assignment, renamed.fillings)
    own = {"bitatlas.written_by": json.dumps(choosing.written(choice)), "bitatlas.names": json.dumps(names)}
    helper.set_model_props(model, {**properties, **own})
    check(model)
    return model


def check(model: onnx.ModelProto) -> None:
    """Check the model with full type inference, that its nodes' names are unique, and that it takes any number of samples."""
    onnx.checker.check_model(model, full_check=True)
    nodes = [node.name for node in model.graph.node]
    if len(set(nodes)) != len(nodes):
        twice = next(name for name in nodes if nodes.count(name) > 1)
        raise BitatlasError(f"names of nodes must be unique, not twice {twice!r}")
    for value in (*model.graph.input, *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if not first.dim_param:
            raise BitatlasError(f"exported model must take any number of samples, not {first.dim_value} ({value.name})")


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name one of letters, digits, underscores, dots and slashes alone; different ones for different names."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if name not in found:
            plain = re.sub(r"[^A-Za-z0-9_./]", "_", name)
            found[name] = plain if plain not in taken else next(n for i in range(2, 2**30) if (n := f"{plain}_{i}") not in taken)
            taken.add(found[name])
    return found


def _renamed(network: Network, assignment: Assignment, fillings: Fillings, names: Mapping[str, str]) -> _Renamed:
    return _Renamed(
        network=replace(network, layers=tuple(replace(layer, name=names[layer.name]) for layer in network.layers)),
        assignment=replace(assignment, layers={names[name]: layer for name, layer in assignment.layers.items()}),
        fillings={(names[name], place): filling for (name, place), filling in fillings.items()},
    )


def _lower(what: _Renamed, layer: str, role: Role, lowering: Lowering) -> _Lowered:
    filling, parts, prefix = what.fillings[layer, role], Parts(), f"{layer}/{role}"
    made = _Lowered(filling=filling, parts=parts, source=f"{prefix}/source", output=f"{prefix}/quantized")
    if isinstance(filling, StoredWeight):
        lowering.lower_weight(what.network.layer(layer), filling, made.output, parts)
    else:
        assert isinstance(filling, ActivationQuantizer)
        lowering.lower_activation(prefix, filling, made.source, made.output, parts)
    return made


def _put_in(model: onnx.ModelProto, lowered: Mapping[tuple[str, Role], _Lowered], opset: int) -> None:
    """Put lowered operands in the place of the slots, once for all the layers that read the same, and drop what nothing reads."""
    graph = model.graph
    nodes: list[onnx.NodeProto] = []
    used: dict[tuple[str, int], _Lowered] = {}
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.domain != neutral.DOMAIN:
            nodes.append(node)
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute).decode() for attribute in node.attribute}
        one = lowered[attributes["layer"], attributes["role"]]
        known = used.setdefault((node.input[0], id(one.filling)), one)
        renamed[node.output[0]] = known.output
        if known is one:
            renamed[one.source] = node.input[0]
            nodes.extend(one.parts.nodes)
    for node in nodes:
        node.input[:] = [_followed(name, renamed) for name in node.input]
    _fill(model, nodes, [one.parts for one in used.values()], opset)


def _followed(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _fill(model: onnx.ModelProto, nodes: list[onnx.NodeProto], all_parts: list[Parts], opset: int) -> None:
    graph = model.graph
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:], model.opset_import[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *(tensor for parts in all_parts for tensor in parts.initializers)])
    functions = {(f.domain, f.name): f for parts in all_parts for f in parts.functions.values()}
    model.functions.extend(functions[key] for key in sorted(functions))
    asked = Parts(opsets={"": opset})
    for domain, version in ((domain, version) for parts in all_parts for domain, version in parts.opsets.items()):
        asked.need(domain, version)
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(asked.opsets.items()))
    for function in model.functions:  # a function must not disagree with its model
        for imported in function.opset_import:
            imported.version = asked.opsets.get(imported.domain, imported.version)
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    model.producer_name = "bitatlas"
    _clean_names(graph)


def _clean_names(graph: onnx.GraphProto) -> None:
    """Give values and nodes names that other tools take: layers may be called anything."""
    values = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    plain = clean_names([*values, *(name for node in graph.node for name in node.output)])
    for tensor in graph.initializer:
        tensor.name = plain[tensor.name]
    for node in graph.node:
        node.input[:] = [plain.get(name, name) for name in node.input]
        node.output[:] = [plain[name] for name in node.output]
    nodes = clean_names(node.name for node in graph.node)
    for node in graph.node:
        node.name = nodes[node.name]
