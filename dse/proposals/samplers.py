"""Samplers by name: ours and those of Optuna that can take several objectives, constraints and categorical parameters."""

import warnings

import optuna

from dse.proposals.sampler import FrontSampler
from formats.names import unknown_name

NAMES = ("front", "tpe", "nsga2", "gp", "random")
#: random trials before the tree-structured Parzen estimator looks at any
STARTUP = 20
POPULATION = 50


def make(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler by name; ``KeyError`` names the nearest.

    - ``front``: ours; the default everywhere. It takes its seed from the study, with everything else.
    - ``tpe``: a tree-structured Parzen estimator over all parameters jointly.
    - ``nsga2``: a genetic algorithm; its first population is random, and it needs thousands of trials.
    - ``gp``: a Gaussian process. Options are categories without an order, so that it learns nothing about one from its
      neighbours; a proposal's time grows with the cube of the trials, to some seconds from about a hundred trials on.
    - ``random``: uniform over everything, constraints or not.

    All but ``random`` honour constraints set by ``Trial.set_constraint``; ``front`` keeps budgets by its plan instead.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "front":
            return FrontSampler()
        if name == "tpe":
            return optuna.samplers.TPESampler(multivariate=True, n_startup_trials=STARTUP, seed=seed)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, deterministic_objective=True)
        if name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
    raise unknown_name("sampler", name, NAMES)
