"""The options of a search: from flags, from a TOML file, or both, and back to TOML."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin

from dse.addresses import shown
from dse.ptq import steps as stepping
from dse.targets import target
from formats.errors import BitatlasError, InvalidValueError
from formats.names import unknown_name
from hwmodels.fpga.pipeline import Target

SAMPLERS = ("front", "tpe", "nsga2", "gp", "random")
SENSITIVITIES = ("solo", "gradient", "gradient-diagonal")
#: types that a file must hold an option in, by the option's own type, and what they are called
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    str: ((str,), "a string"),
    str | None: ((str,), "a string"),
    float | None: ((int, float), "a number"),
}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """Everything that ``dse search`` can be told."""

    model: str
    out: str
    data: str | None = None
    data_dir: str | None = None
    #: for weights and activations both, unless either is set apart
    formats: tuple[str, ...] = ()
    weight_formats: tuple[str, ...] = ()
    activation_formats: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ("kl", "lut")
    constraint: tuple[str, ...] = ()
    trials: int = 200
    seed: int = 0
    sampler: str = "front"
    #: how the losses are scored that the sampler ``front`` begins with
    sensitivity: str = "solo"
    #: rows of steps to choose from, for the float network and for a layer's weight
    network_steps: tuple[str, ...] = ("none",)
    layer_steps: tuple[str, ...] = ("none",)
    #: patterns of layer names that share formats, beside those that read one tensor
    tie: tuple[str, ...] = ()
    ties: str = "auto"
    rungs: tuple[str, ...] = ()
    storage: str | None = None
    study: str = "search"
    cycles: int = 1024
    device: str | None = None
    fps: float | None = None
    budget: float | None = None
    clock: float | None = None
    #: samples that a GPU takes at a time, for objectives such as latency_us@h100
    batch: int = 1
    choose: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no search can be run with."""
        for item in fields(self):
            if getattr(self, item.name) == "" or "\0" in str(getattr(self, item.name)):
                raise InvalidValueError(f"--{item.name.replace('_', '-')} must be a text without null bytes, not empty")
        if not self.weights or not self.activations:
            which = "--weight-formats" if not self.weights else "--activation-formats"
            raise InvalidValueError(
                f"formats must be at least one for weights and for activations, not none: give --formats or {which}"
            )
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise InvalidValueError(
                f"--objectives must be different names, at least one, not {','.join(self.objectives) or 'none'}"
            )
        for name in ("trials", "cycles", "batch"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise InvalidValueError(f"--seed must not be negative, not {self.seed}")
        self._check_names()
        target(self.device, self.fps, self.budget, self.clock)

    def _check_names(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown_name("sampler", self.sampler, SAMPLERS)
        if self.sensitivity not in SENSITIVITIES:
            raise unknown_name("sensitivity", self.sensitivity, SENSITIVITIES)
        if self.ties not in ("auto", "none"):
            raise InvalidValueError(f"--ties must be auto or none, not {self.ties}")
        if not self.network_steps or not self.layer_steps:
            which = "--layer-steps" if self.network_steps else "--network-steps"
            raise InvalidValueError(f"{which} must be at least one row of steps, not none; the row without a step is called none")
        self.rung_samples  # noqa: B018 - refuses what is no list of numbers

    @property
    def weights(self) -> tuple[str, ...]:
        """Formats to choose from for weights."""
        return self.weight_formats or self.formats

    @property
    def activations(self) -> tuple[str, ...]:
        """Formats to choose from for activations."""
        return self.activation_formats or self.formats

    @property
    def rung_samples(self) -> tuple[int, ...]:
        """Samples of each rung below a full measurement; by default 16 and 64 for the sampler ``front``, none for others."""
        given = self.rungs or (("16", "64") if self.sampler == "front" else ("none",))
        if given == ("none",):
            return ()
        if not all(text.isdecimal() and int(text) > 0 for text in given):
            raise InvalidValueError(f"--rungs must be numbers of samples such as 16,64, or none, not {','.join(given)}")
        return tuple(sorted(map(int, given)))

    @property
    def target(self) -> Target | None:
        """The device and what a pipeline on it is folded for; None without one."""
        return target(self.device, self.fps, self.budget, self.clock)

    def to_toml(self) -> str:
        """Return the settings as TOML that ``--config`` reads, without the password that an address may hold."""
        import tomli_w

        options = asdict(self) | {"storage": shown(self.storage) if self.storage else None}
        return tomli_w.dumps({name: value for name, value in options.items() if value is not None and value != ()})


def from_toml(text: str) -> SearchSettings:
    """Return the settings that ``to_toml`` wrote."""
    table: dict[str, Any] = tomllib.loads(text)
    options: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    return SearchSettings(**options)


#: options that may change between the runs of one search: they add trials, or say where things are and what to pick
FREE = ("trials", "choose", "out", "data_dir", "storage", "study")


def merge(config: Path | None, flags: Mapping[str, Any]) -> SearchSettings:
    """Make settings from a TOML file and the flags that were given, which win."""
    known = {item.name: item for item in fields(SearchSettings)}
    table = _read(config, known) if config else {}
    given = {**table, **{name: _listed(value, known[name]) for name, value in flags.items() if value is not None}}
    for name in ("model", "out"):
        if name not in given:
            raise InvalidValueError(f"--{name} must be given, by flag or in the --config file")
    return SearchSettings(**given)


def _read(config: Path, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise BitatlasError(f"--config must be readable, not fail ({error.strerror}): {config}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"--config must be valid TOML, not broken ({error}): {config}") from None
    named = {name.replace("-", "_"): _typed(name, value, known, config) for name, value in table.items()}
    if len(named) != len(table):
        raise InvalidValueError(f"options must be given once, not with hyphens and with underscores too: {config}")
    return named


def _listed(value: Any, item: Any) -> Any:
    """Return a flag's value as its setting holds it: a list in one string as its parts."""
    if get_origin(item.type) is not tuple:
        return value
    return split_list(value) if isinstance(value, str) else tuple(value)


def _typed(given_name: str, value: Any, known: Mapping[str, Any], config: Path) -> Any:
    name = given_name.replace("-", "_")
    if name not in known:
        raise unknown_name("option", given_name, known, see=f": {config}")
    kind = known[name].type
    if get_origin(kind) is tuple:
        if isinstance(value, str):
            return split_list(value)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InvalidValueError(f"option {given_name} must be a list of strings, not {value!r}: {config}")
    expected, words = _KINDS[kind]
    if not isinstance(value, expected) or isinstance(value, bool):
        raise InvalidValueError(f"option {given_name} must be {words}, not {value!r}: {config}")
    return float(value) if isinstance(value, int) and kind is not int else value


def split_list(text: str) -> tuple[str, ...]:
    """Split ``a,b(c,d)`` at commas that stand in no brackets, dropping blanks around the parts and empty parts."""
    return tuple(stepping.split(text, ","))


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What two runs must share for their trials to stand in one ledger."""

    parts: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(settings: SearchSettings, identity: Mapping[str, str], code_version: str) -> "Fingerprint":
        """Collect the settings that are not free, the digests of model and data, and the code version."""
        options = {
            name: value
            for name, value in asdict(settings).items()
            if name not in (*FREE, "formats", "weight_formats", "activation_formats")
        }
        options |= {"weight formats": settings.weights, "activation formats": settings.activations}
        text = {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in options.items()}
        return Fingerprint(parts={**text, **identity, "code": code_version})

    def differences(self, other: "Fingerprint") -> list[str]:
        """Say what differs between an earlier run's fingerprint and this one."""
        names = [*other.parts, *(name for name in self.parts if name not in other.parts)]
        return [
            f"{name} was {_short(other.parts.get(name))}, is {_short(self.parts.get(name))}"
            for name in names
            if other.parts.get(name) != self.parts.get(name)
        ]


def _short(value: str | None) -> str:
    if value is None:
        return "unset"
    return value if len(value) != 64 else value[:12] + "…"
