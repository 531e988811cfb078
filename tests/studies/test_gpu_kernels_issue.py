"""What compiled kernels have to issue is told as a prediction, or in a line without Triton."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from studies import gpu_kernels_issue


def test_what_kernels_have_to_issue_is_labelled_as_a_prediction_and_comes_with_its_table(tmp_path: Path) -> None:
    text = "\n".join(gpu_kernels_issue.section(tmp_path, quick=True))
    assert text.startswith("## What the compiled kernels have to issue")
    assert "**Predictions, never measured**, for NVIDIA H100 SXM5 80GB" in text
    assert "Above 1 the kernel cannot reach the rate of the memory" in text
    assert "1.83 GHz" in text
    table = pd.read_csv(tmp_path / "predicted_issue_h100.csv").set_index("kernel")
    assert table["format"].to_dict() == {"weight_only_gemv": "int2", "weight_only_gemm": "int2", "quantize": "int4"}
    assert (table["issue / memory cycles"] > 0).all()
    assert table["issue / tensor-core cycles"].isna().to_dict() == {
        "weight_only_gemv": False,
        "weight_only_gemm": False,
        "quantize": True,
    }
    for figure in table["instructions a number"].round(2):
        assert f"| {figure:g} |" in text


def test_without_triton_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert gpu_kernels_issue.section(tmp_path) == [
        "## What the compiled kernels have to issue",
        "",
        "Not told here: triton must be installed for what compiled kernels have to issue: pip install bitatlas[gpu].",
        "",
    ]
    assert not list(tmp_path.iterdir())
