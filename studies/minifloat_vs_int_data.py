"""What the study of minifloats against integers measures: pairs of formats after rows of post-training steps, a line for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import pandas as pd
from tqdm import tqdm

from dse.assignment import parse_quantizer
from dse.experiment import Experiment, prepare
from dse.models import loading
from dse.ptq import steps as stepping
from dse.quantize import Preparation
from formats import registry
from hwmodels import cost
from hwmodels.storage import WEIGHT_MEMORY
from studies.minifloat_vs_int_cost import mac_units

#: exponents wider than this waste codes at eight bits and below
MOST_EXPONENT_BITS = 5
NONE, ALL = "none", "all"
INTEGER, MINIFLOAT, EVEN = "integer", "minifloat", "even minifloat"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Post-training steps that are run together, for the network and for each layer's weight."""

    name: str
    network: tuple[str, ...] = ()
    layer: tuple[str, ...] = ()
    #: widths in bits from which on it is left out
    below: int = 9
    #: networks that it is for; all of them where empty
    models: tuple[str, ...] = ()


#: all steps off, each alone, and several in their default order: learned rounding is one more way to choose codes, as GPTQ is
ROWS = (
    Row(name=NONE),
    Row(name="equalize", network=("equalize",), below=7),
    Row(name="smooth", network=("smooth",), below=7),
    Row(name="rotate", network=("rotate",), below=7, models=("vit",)),
    Row(name="gptq", layer=("gptq",), below=7),
    Row(name="round", layer=("round",), below=5),
    Row(name="correct_bias", layer=("correct_bias",), below=7),
    Row(name="gptq+correct_bias", layer=("gptq", "correct_bias"), below=7),
    Row(name=ALL, network=("equalize", "smooth"), layer=("gptq", "correct_bias")),
)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """How much is measured."""

    models: tuple[str, ...]
    data: str
    widths: tuple[int, ...]
    #: widths of weights and activations where they differ
    unequal: tuple[tuple[int, int], ...]
    rows: tuple[Row, ...]
    #: validation images of a measurement
    samples: int


FULL = Scope(
    models=("resnet8", "mobilenet", "vit"),
    data="fashion-mnist",
    widths=(3, 4, 5, 6, 7, 8),
    unequal=((3, 6), (4, 6), (4, 8), (6, 4), (8, 4)),
    rows=ROWS,
    samples=1000,
)
QUICK = Scope(
    models=FULL.models,
    data="digits",
    widths=(3, 4, 6),
    unequal=((4, 6),),
    rows=tuple(row for row in ROWS if row.name in (NONE, "rotate", "gptq", ALL)),
    samples=100,
)


def splits(bits: int) -> tuple[str, ...]:
    """Return the signed minifloats of a width in bits by name: every split into exponent and mantissa."""
    return tuple(f"e{exponent}m{bits - 1 - exponent}" for exponent in range(1, min(bits - 1, MOST_EXPONENT_BITS) + 1))


def formats(bits: int) -> tuple[str, ...]:
    """Return all formats of a width, the integer first."""
    return (f"int{bits}", *splits(bits))


def kind(name: str) -> str:
    """Return which side a format is on.

    With one exponent bit all levels are evenly spaced: an integer in all but name, on neither side.
    """
    return INTEGER if name.startswith("int") else EVEN if name.startswith("e1m") else MINIFLOAT


def rows_for(scope: Scope, model: str, bits: int) -> list[Row]:
    """Return the rows of steps that a network's formats of a width go through."""
    return [row for row in scope.rows if bits < row.below and (not row.models or model in row.models)]


def pairs(scope: Scope, model: str) -> list[tuple[Row, str, str]]:
    """Return what is measured with one format for weights and activations."""
    return [
        (row, name, name)
        for row in scope.rows
        for bits in scope.widths
        if row in rows_for(scope, model, bits)
        for name in formats(bits)
    ]


def unequal_pairs(scope: Scope, lines: pd.DataFrame, model: str) -> list[tuple[Row, str, str]]:
    """Return what is measured with formats of two widths: integers, and of minifloats the best of each width after its best row."""
    found = best_rows(lines[lines["model"] == model])
    best = {bits: closest(found, bits) for bits in sorted({bits for pair in scope.unequal for bits in pair})}
    rows = [row for row in scope.rows if row.name in (NONE, ALL)]
    sides = [(f"int{weight}", f"int{activation}") for weight, activation in scope.unequal]
    sides += [(best[weight], best[activation]) for weight, activation in scope.unequal]
    return [(row, *pair) for row in rows for pair in sides]


def closest(lines: pd.DataFrame, bits: int) -> str:
    """Return the minifloat of a width whose predictions are closest to the float network's."""
    of_width = lines[(lines["weight_bits [bit]"] == bits) & (lines["kind"] == MINIFLOAT)]
    return str(of_width.sort_values("kl [nat]", kind="stable")["weight"].iloc[0])


def line(experiment: Experiment, row: Row, weight: str, activation: str, samples: int) -> dict[str, object]:
    """Measure a network with the same two formats everywhere; a measurement made before is looked up."""
    preparation = experiment.preparation.after(row.network)
    subject = experiment.subject
    quantizers = parse_quantizer(weight, "weight"), parse_quantizer(activation, "activation")
    assignment = preparation.uniform(subject.model, subject.dataset.name, *quantizers, row.layer)
    measured = experiment.measure(assignment, samples=samples)
    plans = experiment.plans(assignment)
    units = mac_units(plans)
    return {
        "model": subject.model,
        "data": subject.dataset.name,
        "weight": weight,
        "activation": activation,
        "weight_bits [bit]": registry.scalar(weight).bits,
        "activation_bits [bit]": registry.scalar(activation).bits,
        "kind": kind(weight),
        "steps": row.name,
        "network_steps": stepping.row(row.network),
        "layer_steps": stepping.row(row.layer),
        "accuracy [share]": measured.accuracy,
        "kl [nat]": measured.kl,
        "weight_memory [bit]": sum(cost.evaluate([WEIGHT_MEMORY], plans).total.values()),
        "mac_units [LUT]": units.lut,
        "mac_units_predicted [share]": units.predicted,
    }


def measured(scope: Scope) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return all lines, and by network the accuracy of the float network on the same images."""
    lines, floats = pd.DataFrame(), {}
    for model in scope.models:
        experiment = prepare(loading.load(model, scope.data))
        found = pd.DataFrame(_lines(experiment, pairs(scope, model), scope.samples))
        more = pd.DataFrame(_lines(experiment, unequal_pairs(scope, found, model), scope.samples))
        lines = pd.concat([lines, found, more], ignore_index=True)
        labels = experiment.split("validation").labels[: scope.samples]
        floats[model] = float((experiment.float_logits("validation")[: scope.samples].argmax(axis=1) == labels).mean())
    return lines, floats


def _lines(experiment: Experiment, wanted: Sequence[tuple[Row, str, str]], samples: int) -> Iterator[dict[str, object]]:
    with tqdm(total=len(wanted), desc=experiment.subject.model, unit="assignment", disable=None) as bar:
        for row, some in groupby(wanted, key=lambda one: one[0]):
            # what is kept for the formats of one row is not used by the next
            fresh = replace(experiment, preparation=_without_caches(experiment.preparation))
            for _, weight, activation in some:
                yield line(fresh, row, weight, activation, samples)
                bar.update()


def _without_caches(preparation: Preparation) -> Preparation:
    return Preparation(network=preparation.network, statistics=preparation.statistics, calibration=preparation.calibration)


def best_rows(lines: pd.DataFrame) -> pd.DataFrame:
    """Return for every network and pair of formats the line of the row of steps with the lowest divergence."""
    closest_first = lines.sort_values("kl [nat]", kind="stable")
    return closest_first.drop_duplicates(["model", "weight", "activation"]).sort_index().reset_index(drop=True)
