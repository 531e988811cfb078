"""What each subcommand of ``dse`` does; imported when one is run, so that ``dse --help`` stays quick."""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

import formats
from dse import assignment as assignments
from dse import data
from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment, prepare
from dse.files import write_text
from dse.models import loading, zoo
from dse.objectives import header
from dse.searching import export_checked
from dse.searching import search as run_search
from dse.settings import merge
from formats.errors import BitatlasError, InvalidValueError


def search(options: argparse.Namespace) -> None:
    """Run ``dse search``."""
    names = ("model", "out", "data", "data_dir", "formats", "weight_formats", "activation_formats", "objectives")
    flags = {name: getattr(options, name) for name in (*names, "constraint", "trials", "seed", "sampler", "cycles", "choose")}
    run_search(merge(options.config, flags))


def evaluate(options: argparse.Namespace) -> None:
    """Run ``dse evaluate``."""
    experiment, assignment = _open(options)
    measured = experiment.measure(assignment, options.split)
    reference = experiment.float_figures(options.split)
    cost, not_priced = experiment.priced_cost(assignment)
    models = {metric.name: model.name for model in experiment.cost_models for metric in model.metrics}
    units = {metric.name: header(metric.name, metric.unit, models[metric.name]) for metric in cost.metrics}
    rows = [
        {"layer": name, "weight": str(layer.weight), "activation": str(layer.activation)}
        | {units[metric]: value for metric, value in cost.layers[name].items()}
        for name, layer in assignment.layers.items()
    ]
    total = {"layer": "total", "weight": "", "activation": ""} | {units[name]: value for name, value in cost.total.items()}
    frame = pd.DataFrame([*rows, total])
    print(frame.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.10g}"))
    print()
    samples = f"{len(experiment.split(options.split))} {options.split} samples"
    print(f"{experiment.subject.model} on {experiment.subject.dataset.name}, {samples}")
    print(f"accuracy [share]: {measured.accuracy:.4f} (float32: {reference.accuracy:.4f})")
    print(f"KL to float32 [nat]: {measured.kl:.6g}")
    for metric in cost.metrics:
        print(f"{units[metric.name]}: {metric.summary}")
    for reason in not_priced:
        print(f"left out: {reason}")
    if options.csv:
        write_text(options.csv, frame.to_csv(index=False))
    if options.save:
        replace(assignment, figures={"accuracy": measured.accuracy, "kl": measured.kl, **cost.total}).write(options.save)


def export(options: argparse.Namespace) -> None:
    """Run ``dse export``."""
    experiment, assignment = _open(options)
    agreement = export_checked(experiment, assignment, options.out)
    print(f"onnxruntime against the emulator on validation: {agreement}")
    print(f"wrote {options.out}")


def _open(options: argparse.Namespace) -> tuple[Experiment, Assignment]:
    """Load the subject that the options or the assignment file name, and the assignment."""
    model, data_name = options.model, options.data
    if options.assignment and (options.weights or options.activations):
        raise InvalidValueError("--assignment must be given alone, not with --weights or --activations")
    if options.assignment:
        named = assignments.read_table(options.assignment)
        for key in ("model", "data"):
            if not isinstance(named.get(key, ""), str):
                raise InvalidValueError(f"{key} of an assignment must be a string, not {named[key]!r}: {options.assignment}")
        model, data_name = model or named.get("model"), data_name or named.get("data") or None
    if not model:
        raise InvalidValueError("--model must be given where the assignment file names none")
    if ":" in model and not options.data:
        data_name = None  # the factory brings its own
    experiment = prepare(loading.load(model, data_name, Path(options.data_dir) if options.data_dir else None), options.cycles)
    layers = experiment.preparation.network.layers
    if options.assignment:
        products = [layer.name for layer in layers if layer.weight is None]
        read = assignments.read(options.assignment, [layer.name for layer in layers], products)
        return experiment, replace(read, model=model, data=experiment.subject.dataset.name)
    if not options.weights or not options.activations:
        raise InvalidValueError("--assignment FILE must be given, or both --weights and --activations")
    weight, activation = parse_quantizer(options.weights, "weight"), parse_quantizer(options.activations, "activation")
    return experiment, experiment.preparation.uniform(model, experiment.subject.dataset.name, weight, activation)


def list_formats(options: argparse.Namespace) -> None:
    """Run ``dse formats``."""
    if not options.name:
        print("\n".join(formats.names()))
        return
    fmt = formats.get(options.name)
    if isinstance(fmt, formats.BlockFormat):
        print(f"{fmt.name}: {fmt.summary}; {fmt.bits_per_element:g} bits for an element; its codes: dse formats {fmt.element.name}")
        return
    if fmt.bits > 8:
        raise BitatlasError(f"a format's codes are listed up to 8 bits, not for {fmt.bits}")
    print(f"{fmt.name}: {fmt.summary}; {fmt.bits} bits, from {fmt.minimum:g} to {fmt.maximum:g}")
    digits = -(-fmt.bits // 4)
    for code, value in enumerate(fmt.values):
        print(f"0x{code:0{digits}x}  {'unused' if code in fmt.unused else format(value, '.9g')}")


def list_models(options: argparse.Namespace) -> None:
    """Run ``dse models``."""
    del options
    print(pd.read_csv(zoo.WEIGHTS_FOLDER / "accuracy.csv").to_string(index=False))
    print(f"\ndata sets: {', '.join(data.names())}; your own model: --model package.module:factory")
