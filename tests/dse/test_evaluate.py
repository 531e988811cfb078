import numpy as np
import pytest
import torch
from torch.nn import functional

from dse.evaluate import figures
from formats import BitatlasError

GENERATOR = np.random.default_rng(0)


def test_kl_equals_torchs() -> None:
    logits, reference = (GENERATOR.normal(size=(50, 10)).astype(np.float32) * 5 for _ in range(2))
    expected = functional.kl_div(
        torch.from_numpy(logits).double().log_softmax(1),
        torch.from_numpy(reference).double().log_softmax(1),
        reduction="batchmean",
        log_target=True,
    )
    found = figures(logits, reference, np.zeros(50, np.int64))
    assert found.kl == pytest.approx(float(expected), rel=1e-6)


def test_equal_logits_have_no_divergence() -> None:
    logits = GENERATOR.normal(size=(50, 10)).astype(np.float32)
    assert figures(logits, logits, logits.argmax(1)).kl == 0
    assert figures(logits, logits, logits.argmax(1)).accuracy == 1


def test_logits_that_are_not_finite_are_refused() -> None:
    logits = np.array([[np.nan, 1], [np.inf, 0]], np.float32)
    with pytest.raises(BitatlasError, match=r"^logits must be finite, not NaN or Inf in 2 values$"):
        figures(logits, np.zeros_like(logits), np.zeros(2, np.int64))
