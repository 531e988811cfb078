"""Running a traced network node by node: all values kept, or only what follows from changed layers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx

from dse.network import SLOTS, Filling, Network, Place, slot_path
from dse.sensitivity.groups import Fillings, filled_copy

Values = dict[fx.Node, Any]


class Runner(fx.Interpreter):
    """Runs the graph with fillings of its own, so that several threads can run with different ones; the network's stay empty.

    A filling is given a copy of its operand.
    """

    def __init__(self, network: Network, fillings: Mapping[str, Filling] | None = None, keep: bool = False) -> None:
        """Take fillings by the slots' paths; ``keep`` holds on to the value of every node."""
        super().__init__(network.graph_module, garbage_collect_values=not keep)
        self._fillings = fillings or {}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Fill a slot."""
        if not str(target).startswith(f"{SLOTS}."):
            return super().call_module(target, args, kwargs)
        filling = self._fillings.get(target)
        return args[0] if filling is None else filled_copy(filling, args[0])


def slots(network: Network, fillings: Fillings) -> dict[str, Filling]:
    """Return fillings by the path of their slot."""
    index = {layer.name: number for number, layer in enumerate(network.layers)}
    return {slot_path(index[name], place): filling for (name, place), filling in fillings.items()}


def all_values(network: Network, images: Tensor) -> tuple[Values, Tensor]:
    """Run the float network on (N, …) samples; return the value of every node and the logits."""
    runner = Runner(network, keep=True)
    logits: Tensor = runner.run(images)
    return dict(runner.env), logits


def layer_nodes(network: Network) -> dict[str, fx.Node]:
    """Return the node that computes each layer."""
    modules = {str(node.target): node for node in network.graph_module.graph.nodes if node.op == "call_module"}
    return {layer.name: next(iter(modules[slot_path(i, "activation")].users)) for i, layer in enumerate(network.layers)}


def slot_nodes(network: Network, layers: tuple[str, ...]) -> dict[tuple[str, Place], fx.Node]:
    """Return the nodes of the slots of some layers, by layer and place."""
    modules = {str(node.target): node for node in network.graph_module.graph.nodes if node.op == "call_module"}
    places: tuple[Place, ...] = ("activation", "weight", "bias")
    index = {layer.name: number for number, layer in enumerate(network.layers)}
    paths = {(name, place): slot_path(index[name], place) for name in layers for place in places}
    return {key: modules[path] for key, path in paths.items() if path in modules}


def downstream(changed: set[fx.Node], network: Network) -> set[fx.Node]:
    """Return the nodes that depend on any of ``changed``, those included."""
    found = set(changed)
    for node in network.graph_module.graph.nodes:  # the graph is in topological order
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found
