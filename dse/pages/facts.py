"""Everything that a report of a search says, gathered: plain data, so that a report can be made of any outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dse.objectives import Objective
from dse.proposals.table import ChoiceTable
from dse.report import Outcome
from dse.search import Evaluated
from dse.settings import SearchSettings


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Accuracy of the chosen point on the test split, which no search looks at, and the float network's there."""

    accuracy: float
    float_accuracy: float
    samples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity:
    """Losses of every option of every group, and the option of each group that the chosen point has."""

    table: ChoiceTable
    chosen: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """A search as its report knows it, at its end or on the way."""

    folder: Path
    settings: SearchSettings
    #: the command that made the report; empty where Python code did
    command: str
    #: layers in groups that share formats
    groups: tuple[tuple[str, ...], ...]
    found: Outcome
    chosen: Evaluated | None
    #: whether the search has ended, and how
    status: str
    #: every figure that there is, by name
    objectives: Mapping[str, Objective]
    #: on the validation split, of which this is the size
    float_accuracy: float
    validation_samples: int
    #: None while the search has not ended, and where nothing was chosen
    held_out: HeldOut | None = None
    #: how the exported model agrees with the emulator; empty while there is none
    agreement: str = ""
    #: None where the search began without sensitivities
    sensitivity: Sensitivity | None = None

    @property
    def title(self) -> str:
        """What was searched, in a few words."""
        return f"{self.settings.model} on {self.settings.data}"

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that every trial measured in full has, in the order of the objectives there are."""
        full = [trial.figures for trial in self.found.trials if not trial.dropped]
        return tuple(name for name in self.objectives if full and all(name in figures for figures in full))
