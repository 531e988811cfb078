"""What each subcommand of ``dse`` does; imported when one is run, so that ``dse --help`` stays quick."""

import argparse
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pandas as pd

import formats
from dse import cost_table, data, targets
from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.models import zoo
from dse.opening import open_assignment
from dse.searching import search as run_search
from dse.settings import SearchSettings, merge
from formats.errors import BitatlasError
from hwmodels.files import write_text
from hwmodels.fpga import prices
from hwmodels.fpga.network_folding import fold_within

if TYPE_CHECKING:
    from dse.hardware.report import Report


def search(options: argparse.Namespace) -> None:
    """Run ``dse search``."""
    flags = {item.name: getattr(options, item.name) for item in fields(SearchSettings)}
    run_search(merge(options.config, flags))


def worker(options: argparse.Namespace) -> None:
    """Run ``dse worker``."""
    from dse.searching import work

    work(options.storage, options.study)


def inspect(options: argparse.Namespace) -> None:
    """Run ``dse inspect``."""
    from dse import inspection_report

    inspection_report.run(options)


def evaluate(options: argparse.Namespace) -> None:
    """Run ``dse evaluate``."""
    if options.differences and options.arithmetic != "exact":
        raise BitatlasError("--differences must go with --arithmetic exact, not with float")
    experiment, assignment = open_assignment(options)
    report = _in_whole_numbers(experiment, assignment, options)
    measured = experiment.measure(assignment, options.split) if report is None else report.figures
    reference = experiment.float_figures(options.split)
    cost, not_priced = experiment.priced_cost(assignment)
    frame = cost_table.figures(cost, assignment, experiment.cost_models)
    print(cost_table.text(frame))
    print()
    samples = f"{len(experiment.split(options.split))} {options.split} samples"
    print(f"{experiment.subject.model} on {experiment.subject.dataset.name}, {samples}")
    print(f"accuracy [share]: {measured.accuracy:.4f} (float32: {reference.accuracy:.4f})")
    print(f"KL to float32 [nat]: {measured.kl:.6g}")
    print("\n".join(cost_table.notes(cost, experiment.cost_models)))
    for reason in not_priced:
        print(f"left out: {reason}")
    if options.csv:
        write_text(options.csv, frame.to_csv(index=False))
    if options.save:
        replace(assignment, figures={"accuracy": measured.accuracy, "kl": measured.kl, **cost.total}).write(options.save)
    if report is not None:
        report.show(options.differences)


def _in_whole_numbers(experiment: Experiment, assignment: Assignment, options: argparse.Namespace) -> "Report | None":
    if options.arithmetic == "float":
        return None
    from dse.hardware.report import Report

    return Report.of(experiment, assignment, options.split)


def cost(options: argparse.Namespace) -> None:
    """Run ``dse cost``."""
    experiment, assignment = open_assignment(options)
    target = targets.target(options.device, options.fps, options.budget, options.clock)
    assert target is not None
    if options.style == "unrolled":
        frame, lines = cost_table.unrolled(experiment, assignment, target)
    else:
        pipeline = fold_within(experiment.plans(assignment), target, prices.DEFAULT)
        frame, lines = cost_table.table(pipeline), cost_table.summary(pipeline)
    print(cost_table.text(frame))
    print()
    print("\n".join(lines))
    if options.csv:
        write_text(options.csv, frame.to_csv(index=False))


def calibrate(options: argparse.Namespace) -> None:
    """Run ``dse calibrate``."""
    from dse import calibrate_fpga, calibrate_gpu

    {"fpga": calibrate_fpga.run, "gpu": calibrate_gpu.run}[options.target](options)


def rtl(options: argparse.Namespace) -> None:
    """Run ``dse rtl``."""
    from dse import rtl as writing

    writing.run(options)


def export(options: argparse.Namespace) -> None:
    """Run ``dse export``."""
    from dse.export import targets as export_targets
    from dse.export.checked import export_checked

    names = export_targets.parse(options.target)  # what is wrong with the options comes before the work
    experiment, assignment = open_assignment(options)
    found = export_checked(experiment, assignment, options.out, names)
    client = "qonnx" if "qonnx" in names else "onnxruntime"
    print(f"not run: {found}" if isinstance(found, str) else f"{client} against the emulator on validation: {found}")
    narrow = [name for name, layer in assignment.layers.items() if layer.accumulator.startswith("fixed")]
    if narrow and names != (export_targets.INTEGER,):
        print(
            f"accumulators of a fixed width ({', '.join(narrow[:3])}{', …' if narrow[3:] else ''}) are not part of a float graph: "
            "dse evaluate --arithmetic exact says what they do"
        )
    print(f"wrote {options.out}")


def import_onnx(options: argparse.Namespace) -> None:
    """Run ``dse import-onnx``."""
    from dse.imports import run

    run.run(options)


def flow(options: argparse.Namespace) -> None:
    """Run ``dse flow``."""
    from dse.flows import finn_flow, hls4ml_flow

    {"finn": finn_flow.run, "hls4ml": hls4ml_flow.run}[options.flow](options)


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
