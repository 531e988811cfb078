"""How answers of an exported model are held against the emulator's."""

import numpy as np
import pytest

from dse.export import runtime
from formats import BitatlasError


def test_a_model_that_answers_otherwise_is_refused() -> None:
    reference = np.eye(10, dtype=np.float32).repeat(20, axis=0)
    wrong = reference.copy()
    wrong[:2] = wrong[:2, ::-1]
    message = r"^predictions of the exported model must differ on at most 0\.5% of samples, not 1\.00% \(.* 198 of 200 .*\): m$"
    with pytest.raises(BitatlasError, match=message):
        runtime.check(runtime.compare(wrong, reference), "m")
    runtime.check(runtime.compare(reference, reference), "m")
