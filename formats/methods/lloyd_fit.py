"""``lloydfit{b}``: the 2**b levels of least squared error for the tensor's own values.

Lloyd's and Max's conditions (see ``formats.lloyd_max``) on samples: k-means on the line (``formats.clustering``), after values are
divided by the root mean square of their row. The fixed code book of a normal distribution is the format ``lloydmax{b}``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.clustering import of_samples
from formats.method import Method, register_method
from formats.methods.fitted import FittedQuantizer, usable_scales


@dataclass(frozen=True, kw_only=True)
class LloydFit(FittedQuantizer):
    """Levels by k-means."""

    @property
    def name(self) -> str:
        """First part of the text form."""
        return f"lloydfit{self.bits}"

    def row_scales(self, rows: NDArray[np.float32], present: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the root of the mean square, by which rows of one distribution become alike."""
        count = np.maximum(present.sum(axis=1, dtype=np.float64), 1)
        return usable_scales(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1) / count))

    def levels(self, x: NDArray[np.float32], importance: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the levels of least weighted squared error."""
        return of_samples(x, 2**self.bits, importance)


register_method(
    Method(
        pattern="lloydfit{b}",
        build=lambda bits, granularity: LloydFit(bits=bits, granularity=granularity),
        ranges=(("b", 1, 8),),
    )
)
