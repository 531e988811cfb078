"""An assignment: for every quantizable layer the quantizers of its two operands, as a file that people can edit."""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dse.network import ROLES, Role
from dse.ptq import steps as stepping
from formats import Accumulator, BitatlasError, InvalidValueError, Quantizer
from formats.names import unknown_name
from formats.tensor_quantizer import TensorQuantizer
from hwmodels.files import write_text

#: an accumulator that is not the hardware's: products are summed in float32 by the float operators themselves, in their order
FLOAT32 = "float32"
KEYS = ("model", "data", "figures", "steps", "layers")
DEFAULTS: dict[Role, tuple[str, str]] = {"weight": ("channel", "mse"), "activation": ("tensor", "mse")}


@dataclass(frozen=True, kw_only=True)
class LayerAssignment:
    """Quantizers of one layer's weight and activation, and how its products are summed."""

    weight: TensorQuantizer
    activation: TensorQuantizer
    #: ``float32``, or the text of an accumulator of whole numbers, whose LSB biases are rounded to: ``exact``, ``fixed:20``
    accumulator: str = FLOAT32
    #: text forms of the steps that prepare the weight, in order
    steps: tuple[str, ...] = ()

    def quantizer(self, role: Role) -> TensorQuantizer:
        """Return the quantizer of one operand."""
        return self.weight if role == "weight" else self.activation

    @property
    def whole_numbers(self) -> bool:
        """Whether products are summed as whole numbers."""
        return self.accumulator != FLOAT32


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Quantizers by layer name, in the network's order, and what they are for.

    ``figures`` are measurements written along for the reader; they take no part in identity.
    """

    model: str
    data: str
    layers: Mapping[str, LayerAssignment]
    #: text forms of the steps that the float network goes through first, in order
    steps: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the steps and the layers' quantizers: equal for equal networks."""
        return hashlib.sha256(json.dumps([self.steps, _layers_as_text(self)]).encode()).hexdigest()

    def in_whole_numbers(self) -> "Assignment":
        """Return the same with an exact accumulator wherever none of whole numbers is chosen."""
        layers = {n: layer if layer.whole_numbers else replace(layer, accumulator="exact") for n, layer in self.layers.items()}
        return replace(self, layers=layers)

    @property
    def text(self) -> str:
        """The assignment as JSON, as its file holds it."""
        content: dict[str, Any] = {"model": self.model, "data": self.data}
        if self.figures:
            content["figures"] = dict(self.figures)
        if self.steps:
            content["steps"] = list(self.steps)
        content["layers"] = _layers_as_text(self)
        return json.dumps(content, indent=2) + "\n"

    def write(self, path: Path) -> None:
        """Write the assignment as JSON."""
        write_text(path, self.text)


def _layers_as_text(assignment: Assignment) -> dict[str, dict[str, str | list[str]]]:
    return {name: _layer_as_text(layer) for name, layer in assignment.layers.items()}


def _layer_as_text(layer: LayerAssignment) -> dict[str, str | list[str]]:
    written: dict[str, str | list[str]] = {role: str(layer.quantizer(role)) for role in ROLES}
    written["accumulator"] = layer.accumulator
    return written | {"steps": list(layer.steps)} if layer.steps else written


def parse_quantizer(text: str, role: Role) -> TensorQuantizer:
    """Read a quantizer's text form with the role's defaults: weights by channel, activations by tensor, both by MSE.

    An activation's must come down to one format and one scale: its scale is fixed beforehand.
    """
    granularity, choice = DEFAULTS[role]
    quantizer = Quantizer.parse(text, granularity=granularity, choice=choice)
    if role == "activation" and quantizer.granularity.name != "tensor":
        raise InvalidValueError(f"granularity of an activation must be tensor, not {quantizer.granularity} ({text})")
    if role == "activation" and not quantizer.static:
        raise InvalidValueError(f"quantizer of an activation must come down to one format and one scale, not be {text}")
    return quantizer


def read(path: Path, layer_names: Sequence[str], products: Sequence[str] = ()) -> Assignment:
    """Read an assignment for a network with these layers from JSON or, by the ending, TOML.

    ``products`` are the layers whose weight operand is an activation too. Raises ``BitatlasError`` for a file that cannot be
    read, an unknown or missing layer and an invalid quantizer, naming the layer and the file.
    """
    content = read_table(path)
    unknown = set(content) - set(KEYS)
    if unknown:
        raise InvalidValueError(f"keys of an assignment must be {', '.join(KEYS)}, not {sorted(unknown)[0]!r}: {path}")
    given = content.get("layers")
    if not isinstance(given, dict):
        raise InvalidValueError(f"an assignment must hold a table 'layers', not lack it: {path}")
    for name in given:
        if name not in layer_names:
            raise unknown_name("layer", name, layer_names, see=f": {path}")
    missing = [name for name in layer_names if name not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidValueError(f"an assignment must name every layer, not lack {missing[0]!r}{more}: {path}")
    layers = {name: _read_layer(name, given[name], name in products, path) for name in layer_names}
    return Assignment(
        model=str(content.get("model", "")),
        data=str(content.get("data", "")),
        layers=layers,
        steps=_read_steps(content.get("steps", []), f" ({path})", "network"),
    )


def _read_accumulator(given: Any, where: str) -> str:
    if given == FLOAT32:
        return FLOAT32
    try:
        accumulator = Accumulator.parse(given)
        if accumulator.kind == "floating":
            raise InvalidValueError(f"accumulator must be {FLOAT32}, exact or fixed:BITS[:wrap], not {given!r}")
    except BitatlasError as error:
        raise type(error)(f"{error}{where}") from None
    return str(accumulator)


def _read_steps(given: Any, where: str, *scopes: stepping.Scope) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise InvalidValueError(f"steps must be a list of texts such as gptq(damping=0.02), not {given!r}{where}")
    try:
        return stepping.checked(given, *scopes)
    except BitatlasError as error:
        raise type(error)(f"{error}{where}") from None


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON or TOML file whose top is a table."""
    try:
        text = path.read_text(encoding="utf-8")
        toml = path.suffix.lower() == ".toml"
        content = tomllib.loads(text) if toml else json.loads(text, object_pairs_hook=_without_duplicates)
    except OSError as error:
        raise BitatlasError(f"file must be readable, not fail ({error.strerror}): {path}") from None
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise InvalidValueError(f"file must be valid {kind}, not broken ({error}): {path}") from None
    if not isinstance(content, dict):
        raise InvalidValueError(f"file must hold a table, not a {type(content).__name__}: {path}")
    return content


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _read_layer(name: str, given: Any, product: bool, path: Path) -> LayerAssignment:
    where = f" (layer {name!r}, {path})"
    if not isinstance(given, dict) or not set(ROLES) <= set(given) <= {*ROLES, "accumulator", "steps"}:
        keys = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise InvalidValueError(f"a layer must hold weight, activation and, if need be, accumulator and steps, not {keys}{where}")
    for role in ROLES:
        if not isinstance(given[role], str):
            raise InvalidValueError(f"{role} must be a quantizer in quotes, such as int4:channel:mse, not {given[role]!r}{where}")
    try:
        # the weight operand of a product is computed: one scale for all of it, as for any activation
        weight = parse_quantizer(given["weight"], "activation" if product else "weight")
        activation = parse_quantizer(given["activation"], "activation")
    except BitatlasError as error:
        raise type(error)(f"{error}{where}") from None
    accumulator = _read_accumulator(given.get("accumulator", FLOAT32), where)
    steps = _read_steps(given.get("steps", []), where, "layer", "block")
    if product and steps:
        raise InvalidValueError(f"steps of a product must be none, since no weight of it is stored, not {'+'.join(steps)}{where}")
    return LayerAssignment(weight=weight, activation=activation, accumulator=accumulator, steps=steps)
