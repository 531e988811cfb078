"""Cheap rungs before a full measurement: an assignment far behind the front on few samples is not measured on all.

On the validation split's first 16 and 64 samples the divergence ranks assignments near the front almost as all samples do; accuracy
does not, so it is measured only for what comes through.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.assignment import Assignment
from dse.experiment import Experiment
from dse.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A number of samples, and how many times the front's divergence one may have on them to be measured further."""

    samples: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """An assignment that was not measured in full: its divergence in nats on a rung, and the better one that costs no more."""

    kl: float
    rung: Rung
    better: float

    def __str__(self) -> str:
        """Say why."""
        return f"KL {self.kl:.3g} on {self.rung.samples} samples, where the front has {self.better:.3g} for no more"


DEFAULT = (Rung(samples=16, margin=4.0), Rung(samples=64, margin=2.0))


@dataclass(frozen=True, kw_only=True)
class Rungs:
    """What an assignment must come through; without rungs everything is measured in full."""

    rungs: tuple[Rung, ...] = DEFAULT
    costs: tuple[Objective, ...]

    def dropped(
        self, experiment: Experiment, assignment: Assignment, costs: Mapping[str, float], front: Sequence[Mapping[str, float]]
    ) -> Dropped | None:
        """Return why an assignment with these costs is not worth a full measurement; None where it is.

        ``front`` holds the figures of what was measured in full. Rungs of more than half of the split are left out.
        """
        no_dearer = [f["kl"] for f in front if all(o.loss(f) <= o.loss(costs) for o in self.costs)]
        if not no_dearer:
            return None
        best = min(no_dearer)
        for rung in self.rungs:
            if 2 * rung.samples <= len(experiment.split("validation")):
                kl = experiment.measure(assignment, samples=rung.samples).kl
                if kl > rung.margin * best:
                    return Dropped(kl=kl, rung=rung, better=best)
        return None
