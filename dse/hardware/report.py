"""``dse evaluate --arithmetic exact``: figures in the arithmetic of hardware, and where they differ from fake quantization."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dse import cost_table
from dse.assignment import Assignment
from dse.evaluate import Figures, figures, quantized_logits
from dse.experiment import Experiment
from dse.export.runtime import compare as agreement
from dse.hardware.differences import Comparison, compare
from hwmodels.files import write_text


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """An assignment in whole numbers on a split."""

    experiment: Experiment
    assignment: Assignment
    split: str
    comparison: Comparison

    @staticmethod
    def of(experiment: Experiment, assignment: Assignment, split: str) -> "Report":
        """Run the assignment in both arithmetics."""
        comparison = compare(experiment.preparation, assignment, experiment.split(split).images)
        return Report(experiment=experiment, assignment=assignment, split=split, comparison=comparison)

    @property
    def figures(self) -> Figures:
        """Accuracy and divergence in whole numbers."""
        labels = self.experiment.split(self.split).labels
        return figures(self.comparison.exact_logits, self.experiment.float_logits(self.split), labels)

    def show(self, differences: Path | None) -> None:
        """Print where codes and predictions differ; ``differences`` is where the table goes as CSV, if anywhere."""
        found, part = self.comparison, self.experiment.split(self.split)
        frame = table(found)
        fake = figures(found.fake_logits, self.experiment.float_logits(self.split), part.labels)
        floating = quantized_logits(self.experiment.preparation, self.assignment, part.images)
        print()
        print(f"arithmetic: whole numbers, from the input's {found.program.input_format.name} codes to the logits; differences:")
        print(cost_table.text(frame))
        print(f"fake quantization, biases on the accumulators' LSBs as here: accuracy {fake.accuracy:.4f}, KL {fake.kl:.6g};")
        print(f"  {agreement(found.exact_logits, found.fake_logits)}")
        print("fake quantization, biases as the assignment has them:")
        print(f"  {agreement(found.exact_logits, floating)}")
        if differences is not None:
            write_text(differences, frame.to_csv(index=False))


def table(found: Comparison) -> pd.DataFrame:
    """Return what differs, operand by operand, with the width that each layer's accumulator needs."""
    uses = {use.layer: use for use in found.accumulators}
    rows = [
        {
            "layer": each.layer,
            "operand": each.role,
            "format": each.format_name,
            "requantizer": each.requantizer,
            "other codes [share]": each.share,
            "largest [LSB]": each.largest,
            "accumulator": uses[each.layer].accumulator,
            "needs [bit]": uses[each.layer].bits,
        }
        for each in found.operands
    ]
    return pd.DataFrame(rows)
