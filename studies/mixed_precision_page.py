"""The study of mixed precision as a page: what was found, in sentences that come out either way."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from studies import provenance
from studies.mixed_precision_data import (
    COST,
    KL,
    LAYER_STEPS,
    LOOK,
    MIXED,
    MIXED_STEPS,
    NETWORK_STEPS,
    UNIFORM,
    UNIFORM_STEPS,
    VARIANTS,
    WITHIN,
    Chosen,
    Found,
    Point,
    Scope,
    Variant,
    front,
)


def summary(networks: Sequence[Found]) -> pd.DataFrame:
    """Return a line for each network and search: hypervolume, and the cheapest point within 1 % of float."""
    rows = []
    for network in networks:
        base = network.chosen[UNIFORM.name]
        for variant in VARIANTS:
            chosen = network.chosen[variant.name]
            row: dict[str, object] = {
                "model": network.model,
                "search": variant.name,
                "trials": network.trials[variant.name],
                "hypervolume [share]": round(network.hypervolume(variant), 4),
                "front": len(front(network.points[variant.name])),
                "cheapest within 1 % [LUT]": round(_cost(chosen)) if chosen else "none",
                "against uniform [%]": _change(chosen, base) if chosen and base else "",
                "validation accuracy [share]": f"{chosen.accuracy:.4f}" if chosen else "",
                "KL [nat]": f"{chosen.point.figures[KL]:.4g}" if chosen else "",
                "weight memory [KiB]": round(chosen.point.figures["weight_bits"] / 8192, 1) if chosen else "",
                "test accuracy [share]": f"{chosen.test:.4f}" if chosen else "",
            }
            rows.append(row)
    return pd.DataFrame(rows)


def _cost(chosen: Chosen) -> float:
    return chosen.point.figures[COST]


def _change(chosen: Chosen, base: Chosen) -> str:
    return f"{100 * (_cost(chosen) / _cost(base) - 1):+.1f}"


def table(networks: Sequence[Found]) -> pd.DataFrame:
    """Return a line for each point that was measured on all images; those of the fronts with every layer's formats and steps."""
    rows = []
    for network in networks:
        for variant in VARIANTS:
            kept = {id(point) for point in front(network.points[variant.name])}
            for point in network.points[variant.name]:
                rows.append(
                    {
                        "model": network.model,
                        "search": variant.name,
                        "origin": point.origin,
                        "front": id(point) in kept,
                        "accuracy [share]": round(point.figures["accuracy"], 6),
                        "kl [nat]": float(f"{point.figures[KL]:.6g}"),
                        "lut [LUT]": point.figures[COST],
                        "weight_bits [bit]": point.figures["weight_bits"],
                        "network steps": "+".join(point.assignment.steps) or "none",
                        "layers": _layers(point) if id(point) in kept else "",
                    }
                )
    return pd.DataFrame(rows)


def _layers(point: Point) -> str:
    return "; ".join(
        " ".join([name, f"{_name(layer.weight)}/{_name(layer.activation)}", *layer.steps])
        for name, layer in point.assignment.layers.items()
    )


def gain(networks: Sequence[Found], over: Variant, by: Variant) -> str:
    """Say what one search finds beyond another."""
    said, better = [], 0
    for network in networks:
        volumes = network.hypervolume(over), network.hypervolume(by)
        before, after = network.chosen[over.name], network.chosen[by.name]
        cheaper = after is not None and (before is None or _cost(after) < _cost(before))
        better += cheaper
        if after is None:
            price = f"no point within {100 * WITHIN:g} %"
        elif before is None:
            price = f"a point within {100 * WITHIN:g} % for {_cost(after):,.0f} LUT where there was none"
        else:
            price = f"{_change(after, before)} % LUT"
        said.append(f"{network.model} {price}, hypervolume {volumes[0]:.3f} to {volumes[1]:.3f}")
    count = len(networks)
    where = "on every network" if better == count else f"on {better} of {count}" if better else "on no network"
    within = f"within {100 * WITHIN:g} % of float"
    return f"*{by.name}* against *{over.name}*: cheaper {where} at an accuracy {within}: {'; '.join(said)}."


def held_out(networks: Sequence[Found]) -> str:
    """Say how well the chosen points do on images that nothing was chosen by."""
    kept, lost = 0, []
    for network in networks:
        for name, chosen in network.chosen.items():
            if chosen is None:
                continue
            if chosen.test >= (1 - WITHIN) * network.float_test:
                kept += 1
            else:
                lost.append(f"{network.model}, {name}: {100 * (1 - chosen.test / network.float_test):.1f} % below")
    floats = ", ".join(f"{network.model} {network.float_test:.4f}" for network in networks)
    text = (
        f"On the test split, {kept} of the {kept + len(lost)} chosen points are within {100 * WITHIN:g} % of float too ({floats})"
    )
    return f"{text}; not {'; '.join(lost)}." if lost else f"{text}."


def used(networks: Sequence[Found]) -> str:
    """Say what the cheapest good points of the widest search are made of."""
    said = []
    for network in networks:
        chosen = network.chosen[MIXED_STEPS.name]
        if chosen is None:
            continue
        good = chosen.point
        layers = good.assignment.layers.values()
        pairs = Counter(f"{_name(layer.weight)}/{_name(layer.activation)}" for layer in layers)
        prepared = sum(bool(layer.steps) for layer in layers)
        mixture = ", ".join(f"{count} {pair}" for pair, count in pairs.most_common())
        said.append(
            f"{network.model} ({good.origin}) has layers {mixture}, {prepared} of {len(layers)} with steps, network steps "
            f"{'+'.join(good.assignment.steps) or 'none'}"
        )
    return f"What the cheapest good point of *{MIXED_STEPS.name}* is made of: {'; '.join(said)}." if said else ""


def _name(quantizer: object) -> str:
    return str(quantizer).split(":")[0]


def page(scope: Scope, networks: Sequence[Found], made: str) -> str:
    """Return the report's text."""
    sentences = [
        gain(networks, UNIFORM, MIXED),
        gain(networks, UNIFORM, UNIFORM_STEPS),
        gain(networks, UNIFORM_STEPS, MIXED_STEPS),
        gain(networks, MIXED, MIXED_STEPS),
        used(networks),
        held_out(networks),
    ]
    return "\n".join(
        [
            "# What mixed precision finds beyond uniform",
            "",
            made,
            "## What one learns",
            "",
            *(f"- {sentence}" for sentence in sentences if sentence),
            "",
            "![Fronts of the four searches](fronts.png)",
            "",
            provenance.markdown(summary(networks)),
            "",
            "The chosen points are in `assignments/`, to be evaluated by `dse evaluate --assignment FILE`; every point that was "
            "measured in full is in `mixed_precision.csv`, those of the fronts with their layers.",
            "",
            *_how(scope, networks),
        ]
    )


def _how(scope: Scope, networks: Sequence[Found]) -> list[str]:
    error = 100 * (0.9 * 0.1 / scope.images) ** 0.5
    floats = ", ".join(f"{n.model} {n.float_accuracy:.4f} and {n.float_validation:.4f}" for n in networks)
    return [
        "## How it was measured",
        "",
        f"- {scope.data}; the searches measure accuracy and divergence on the first {scope.images} validation images, where an "
        f"accuracy of 0.9 has a standard error of {error:.1f} points. So what is chosen, the cheapest point of a front within "
        f"{100 * WITHIN:g} % of float (relatively), is chosen by accuracy on the whole validation split, among points that are "
        f"within {100 * LOOK:g} % on the few images; its accuracy flatters still, as the test split shows, by which nothing "
        f"was chosen. Float networks have {floats} on the few images and on all.",
        f"- Weights {', '.join(scope.weights)} by channel, activations {', '.join(scope.activations)} by tensor; steps of a layer: "
        f"{' or '.join(LAYER_STEPS)}; of the network: {' or '.join(NETWORK_STEPS)}. Layers that read one tensor share "
        "their formats.",
        f"- *{UNIFORM.name}* and *{UNIFORM_STEPS.name}* are measured without exception. *{MIXED.name}* has {scope.trials} trials "
        f"and *{MIXED_STEPS.name}* {scope.step_trials}, by the sampler `front` from sensitivities of one layer at a time on "
        f"{scope.scored} calibration samples; its trials are the uniform assignments, an exact front over the sensitivities, and "
        "what refits and exchanges propose from there; those that fall far behind on a few samples are dropped. It may stop early, "
        "when nothing is to be gained.",
        f"- LUTs are those of a whole pipeline on a {scope.device} at {scope.fps:,} samples a second, folded anew for each "
        "assignment: units and requantizers as Yosys maps them, or predicted by a model fitted to those; memories, windows and "
        "control by formula. Nothing was placed or routed. Steps cost no LUTs: they change codes and biases alone.",
        "- Hypervolume is in divergence and LUTs, both logarithmic, as a share of the box from the best figures that any of a "
        "network's four searches found to the worst of its uniform assignments without steps: it compares the searches of one "
        "network, not networks.",
        "",
    ]
