"""Hypervolume at equal numbers of evaluations: the sampler ``front`` against those of Optuna, on resnet8 and fashion-mnist.

Every method sees the same objectives, divergence on some validation samples and LUTs by formula, and the same parameters: a weight
and an activation format for each group of tied layers. An evaluation is one run of the network over those samples. What ``front``
spends on sensitivities before its first evaluation is counted in evaluations too, so its curve begins to the right of the others'.
Runs that are finished are kept under ``results/`` and read again; what was measured is looked up.
"""

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from tqdm import tqdm

from benchmarks import search_page
from dse import choices
from dse.problem import Problem
from dse.proposals import sampler as proposing
from dse.proposals.frame import Frame
from dse.proposals.sampler import FrontSampler
from dse.proposals.variants import Variants
from dse.results import code_version
from dse.settings import SearchSettings
from dse.stating import state
from hwmodels.files import write_text

COMMAND = "python -m benchmarks.search"
WEIGHTS = ("ternary", "int3", "int4", "e2m1", "int6", "int8")
ACTIVATIONS = ("int3", "int4", "int6", "int8")
COST = "lut"
#: samples that sensitivities are scored on
SCORED = 64
RIVALS: dict[str, tuple[str, Callable[[int], optuna.samplers.BaseSampler]]] = {
    "tpe-default": ("Optuna's default (TPE, each parameter alone)", lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "tpe": ("TPE, multivariate", lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed)),
    "nsga2": ("NSGA-II", lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "gp": ("Gaussian process", lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)),
    "random": ("random", lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}
OURS = {"front-gradient": "front, gradient sensitivities", "front-solo": "front, one layer at a time"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is searched and how it is measured."""

    problem: Problem
    samples: int
    folder: Path

    def figures(self, params: Mapping[str, str]) -> dict[str, float]:
        """Return divergence in nats and cost of a trial's parameters."""
        assignment = self.problem.assignment(params)
        experiment = self.problem.experiment
        return {"kl": experiment.measure(assignment, samples=self.samples).kl, COST: experiment.cost(assignment).total[COST]}

    def frame(self) -> Frame:
        """Return the box that the uniform assignments span, logarithmic on both axes; hypervolumes are shares of it."""
        space = self.problem.space
        uniform = [self.figures(space.params({group.name: option for group in space.groups})) for option in space.uniform]
        ends = {name: [figures[name] for figures in uniform] for name in ("kl", COST)}
        return Frame(
            names=tuple(ends),
            ideals=tuple(max(min(values), 1e-9) for values in ends.values()),
            references=tuple(max(values) for values in ends.values()),
        )

    def ours(self, method: str, seed: int) -> Iterator[dict[str, float]]:
        """Yield the figures that the sampler ``front`` proposes and measures, one after the other."""
        folder = self.folder / f"{method}-{seed}"
        folder.mkdir(exist_ok=True)
        scored = choices.losses(self.problem, method, folder, "none", SCORED, seed)
        variants = Variants(tables={"none": choices.with_costs(self.problem, scored)})
        study = optuna.create_study(directions=["minimize"] * 2, sampler=FrontSampler())
        proposing.store(study, variants, choices.proposal_plan(self.problem, variants), epsilon=0.0)
        while True:
            trial = study.ask(variants.distributions())
            figures = self.figures(trial.params)
            trial.set_user_attr(proposing.FIGURES, figures)
            study.tell(trial, [figures["kl"], figures[COST]])
            yield figures

    def rival(self, sampler: optuna.samplers.BaseSampler) -> Iterator[dict[str, float]]:
        """Yield the figures that one of Optuna's samplers proposes; it sees the divergence's logarithm, as the hypervolume does."""
        study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
        distributions = dict(self.problem.space.distributions())
        while True:
            trial = study.ask(distributions)
            figures = self.figures(trial.params)
            study.tell(trial, [math.log10(max(figures["kl"], 1e-9)), figures[COST]])
            yield figures

    def proxy_evaluations(self, method: str) -> float:
        """Return what sensitivities cost, in evaluations: runs of the network times samples.

        By gradients, a run forwards and twice as much back, and each layer by itself for every option. One layer at a time, a run
        of the rest of the network for every option of every group: of the multiply-accumulates from its first layer on.
        """
        layers = self.problem.experiment.preparation.network.layers
        macs = np.array([layer.workload.macs for layer in layers], float)
        options = len(self.problem.space.uniform)
        runs = 3.0 + options
        if method == "solo":
            index = {layer.name: number for number, layer in enumerate(layers)}
            runs = 1.0 + sum(options * macs[index[group.layers[0]] :].sum() / macs.sum() for group in self.problem.space.groups)
        return float(runs) * SCORED / self.samples


def run(bench: Bench, name: str, seed: int, trials: int) -> dict[str, object]:
    """Return a method's evaluations for one seed, from its file where it was finished before."""
    path = bench.folder / f"{name}-{seed}.json"
    identity = {"samples": bench.samples, "code": code_version()}
    if path.exists():
        kept: dict[str, object] = json.loads(path.read_text())
        if kept["identity"] == identity and len(kept["kl"]) >= trials:  # type: ignore[arg-type]
            return kept
    method = name.removeprefix("front-")
    figures = bench.ours(method, seed) if name in OURS else bench.rival(RIVALS[name][1](seed))
    found = [next(figures) for _ in tqdm(range(trials), desc=f"{name} {seed}", unit="evaluation", disable=None)]
    made = {
        "identity": identity,
        "method": name,
        "seed": seed,
        "before": bench.proxy_evaluations(method) if name in OURS else 0.0,
        "kl": [row["kl"] for row in found],
        COST: [row[COST] for row in found],
    }
    write_text(path, json.dumps(made))
    return made


def main(arguments: list[str] | None = None) -> None:
    """Run the methods that are not finished, and write the report."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--methods", default=",".join([*OURS, *RIVALS]), metavar="A,B,…", help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=1000, metavar="N", help="evaluations of each run (default: %(default)s)")
    parser.add_argument("--ours", type=int, default=200, metavar="N", help="evaluations of ours (default: %(default)s)")
    parser.add_argument(
        "--gp", type=int, default=60, metavar="N", help="of the Gaussian process, which is slow (default: %(default)s)"
    )
    parser.add_argument("--gp-seeds", type=int, default=1, metavar="N", help="runs of the Gaussian process (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each method (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=128, metavar="N", help="samples of an evaluation (default: %(default)s)")
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--out", type=Path, default=Path("reports/search_benchmark"), metavar="DIR")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    folder = Path("results/search_benchmark") / f"{options.model}-{options.data}-{options.samples}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = SearchSettings(
        model=options.model,
        data=options.data,
        weight_formats=WEIGHTS,
        activation_formats=ACTIVATIONS,
        objectives=("kl", COST),
        out="-",
    )
    bench = Bench(problem=state(settings).problem, samples=options.samples, folder=folder)
    runs = []
    for name in options.methods.split(","):
        # a seed draws the labels of the gradient's sensitivities; those of one layer at a time have nothing to draw
        trials = options.ours if name in OURS else min(options.gp, options.trials) if name == "gp" else options.trials
        seeds = {"front-solo": 1, "gp": options.gp_seeds}.get(name, options.seeds)
        runs += [run(bench, name, seed, trials) for seed in range(seeds)]
    labels = OURS | {name: label for name, (label, _) in RIVALS.items()}
    search_page.write(options.out, bench.frame(), runs, labels, f"{COMMAND}", settings, options.samples)
    print(f"report in {options.out}")


if __name__ == "__main__":
    main()
