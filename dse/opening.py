"""The network and the assignment that the options of a subcommand name."""

import argparse
from dataclasses import replace
from pathlib import Path

from dse import assignment as assignments
from dse import gpus, targets
from dse.assignment import Assignment, parse_quantizer
from dse.experiment import Experiment, prepare
from dse.models import loading
from dse.ptq import steps as stepping
from formats.errors import InvalidValueError


def open_assignment(options: argparse.Namespace) -> tuple[Experiment, Assignment]:
    """Load the subject that the options or the assignment file name, and the assignment."""
    model, data_name = options.model, options.data
    without_file = ("weights", "activations", "network_steps", "layer_steps")
    given = [f"--{name.replace('_', '-')}" for name in without_file if getattr(options, name)]
    if options.assignment and given:
        raise InvalidValueError(f"--assignment must be given alone, not with {given[0]}")
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
    # what is wrong with the options comes before the work
    target = targets.target(*(getattr(options, name, None) for name in ("device", "fps", "budget", "clock")))
    graphics = gpus.models(options.gpu or (), options.batch)
    subject = loading.load(model, data_name, Path(options.data_dir) if options.data_dir else None)
    experiment = prepare(subject, options.cycles, target=target, gpus=graphics)
    layers = experiment.preparation.network.layers
    if options.assignment:
        products = [layer.name for layer in layers if layer.weight is None]
        read = assignments.read(options.assignment, [layer.name for layer in layers], products)
        return experiment, replace(read, model=model, data=experiment.subject.dataset.name)
    if not options.weights or not options.activations:
        raise InvalidValueError("--assignment FILE must be given, or both --weights and --activations")
    weight, activation = parse_quantizer(options.weights, "weight"), parse_quantizer(options.activations, "activation")
    prepared = experiment.preparation.after(stepping.parse_row(options.network_steps or stepping.NONE, "network"))
    layer_steps = stepping.parse_row(options.layer_steps or stepping.NONE, "layer", "block")
    return experiment, prepared.uniform(model, experiment.subject.dataset.name, weight, activation, layer_steps)
