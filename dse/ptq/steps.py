"""Post-training steps by name, in the order in which they are run where none is given, and their text form.

A step is written ``NAME`` or ``NAME(OPTION=VALUE,OPTION=VALUE)``, such as ``gptq(act_order=false)``; several in a row are joined by
``+``, and ``none`` is an empty row. A step's options are the fields of its class.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal

from dse.ptq.awq import Awq
from dse.ptq.bias_correction import CorrectBias
from dse.ptq.block_rounding import RoundBlock
from dse.ptq.equalize import Equalize
from dse.ptq.flexround import FlexRound
from dse.ptq.gptq import Gptq
from dse.ptq.low_rank import LowRankCompensation
from dse.ptq.rotate import Rotate
from dse.ptq.rounding import Round
from dse.ptq.smooth import Smooth
from dse.ptq.step import Step
from formats.errors import InvalidValueError
from formats.names import unknown_name

Scope = Literal["network", "layer", "block"]

#: by scope, in the default order: batch norms are folded before all of them, and ranges are selected by the quantizers themselves
#: between the network's steps and the layers'
SCOPES: dict[Scope, tuple[type[Any], ...]] = {
    "network": (Rotate, Equalize, Smooth, Awq),
    "layer": (Gptq, Round, FlexRound, LowRankCompensation, CorrectBias),
    "block": (RoundBlock,),
}
_ALL = (Rotate, Equalize, Smooth, Awq, Gptq, Round, FlexRound, RoundBlock, LowRankCompensation, CorrectBias)
#: names in the default order of a whole row
ORDER = tuple(kind.name for kind in _ALL)
NONE = "none"
_PLACES: dict[Scope, str] = {"network": "the network", "layer": "layers", "block": "blocks"}


def kinds(*scopes: Scope) -> dict[str, type[Any]]:
    """Return the classes of steps by name, in the default order."""
    found = {kind.name: kind for scope in scopes for kind in SCOPES[scope]}
    return {name: found[name] for name in ORDER if name in found}


def scope_of(step: Step) -> Scope:
    """Return what a step works on: the whole network, one layer, or the layers of a block."""
    return next(scope for scope, known in SCOPES.items() if isinstance(step, known))


@lru_cache(maxsize=256)
def parse(text: str, *scopes: Scope) -> Step:
    """Read a step's text form; ``KeyError`` for an unknown step or option, naming the nearest, ``ValueError`` for a bad value."""
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    known = kinds(*(scopes or SCOPES))
    if match is None:
        raise InvalidValueError(f"step must be NAME or NAME(OPTION=VALUE,…), such as gptq(damping=0.02), not {text!r}")
    if match[1] not in known:
        everywhere = kinds(*SCOPES)
        if match[1] in everywhere:
            asked = " or ".join(_PLACES[scope] for scope in scopes)
            raise InvalidValueError(f"step {match[1]} must stand with those of {_place(match[1])}, not of {asked}")
        raise unknown_name("step", match[1], known)
    kind = known[match[1]]
    return kind(**dict(_option(kind, part) for part in (match[2] or "").split(",") if part.strip()))  # type: ignore[no-any-return]


def _place(name: str) -> str:
    return "the network" if name in kinds("network") else "layers"


def _option(kind: type[Any], text: str) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    known = {item.name: item for item in fields(kind)}
    if name not in known:
        raise unknown_name(f"option of {kind.name}", name, known)
    wanted = known[name].type
    try:
        if not equals:
            raise ValueError
        if wanted is bool:
            return name, {"true": True, "false": False}[value.lower()]
        return name, wanted(value) if wanted in (int, float) else value
    except (ValueError, KeyError):
        words = {bool: "true or false", int: "a whole number", float: "a number"}.get(wanted, "a value")  # type: ignore[arg-type]
        raise InvalidValueError(f"option {name} of {kind.name} must be {words}, not {value!r}") from None


def text(step: Step) -> str:
    """Return a step's text form, with the options that are not as they are by default: equal for equal steps."""
    plain = type(step)()
    changed = [item.name for item in fields(step) if getattr(step, item.name) != getattr(plain, item.name)]  # type: ignore[arg-type]
    values = ",".join(f"{name}={_written(getattr(step, name))}" for name in changed)
    return f"{step.name}({values})" if values else step.name


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def parse_row(given: str, *scopes: Scope) -> tuple[str, ...]:
    """Read steps joined by ``+``, or ``none``, and return their text forms in the order given."""
    if given.strip() in (NONE, ""):
        return ()
    return checked(split(given, "+"), *scopes)


def checked(given: Iterable[str], *scopes: Scope) -> tuple[str, ...]:
    """Return the text forms of steps, each of which may stand once; ``ValueError`` where one stands twice."""
    found = [parse(part, *scopes) for part in given]
    names = [step.name for step in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidValueError(f"step must be given once, not {names.count(name)} times: {name}")
    return tuple(text(step) for step in found)


def row(steps: Sequence[str]) -> str:
    """Return the text form of a row of steps."""
    return "+".join(steps) or NONE


def split(given: str, separator: str) -> list[str]:
    """Split at a separator that stands in no brackets, dropping blanks and empty parts."""
    parts, depth = [""], 0
    for character in given:
        depth += (character == "(") - (character == ")")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
