"""The study of GPU kernels says that there are no timings, or what they show."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hwmodels.gpu import devices, roofline, timings
from hwmodels.gpu.gemm import Gemm
from studies import gpu_kernels, gpu_kernels_figures
from studies.gpu_kernels_data import Measured, bounds, crossovers, errors, predictions, speed_ups

H100 = devices.get("h100")
KERNELS = (("torch.matmul", "bfloat16", "bfloat16", 16), ("weight_only_gemm", "weight-only", "int4", 4))


def table() -> pd.DataFrame:
    """Return timings of 1.25 times the roofline and five microseconds, those of int4 three times as long above 64 rows."""
    rows = []
    for (kernel, family, weight, bits), count, size in product(KERNELS, (1, 16, 64, 256, 4096), (1024, 4096)):
        gemm = Gemm(rows=count, columns=size, depth=size, weight_bits=bits)
        seconds = (1.25 * roofline.seconds(gemm, H100) + 5e-6) * (3 if weight == "int4" and count > 64 else 1)
        shape = {"rows": count, "columns": size, "depth": size, "weight_bits": bits, "activation_bits": 16}
        rates = {"gb_s": gemm.bytes / seconds / 1e9, "tera_operations": gemm.operations / seconds / 1e12}
        named = {"kernel": kernel, "family": family, "weight": weight, "activation": "bfloat16", "arithmetic": "bfloat16"}
        for mode in timings.MODES:
            told = {"mode": mode, "correct": True, "microseconds": seconds * 1e6, "device": "NVIDIA H100", "date": "2026-01-01"}
            rows.append(dict.fromkeys(timings.COLUMNS, 0) | shape | rates | named | told)
    return pd.DataFrame(rows)


def test_without_a_table_it_says_so_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "SHIPPED", tmp_path)
    gpu_kernels.main(["--quick", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**No table of timings is there yet**: `dse calibrate gpu" in text
    assert "nothing here was measured" in text
    assert (tmp_path / "out" / "bounds.png").stat().st_size > 10_000


def test_with_a_table_the_report_is_labelled_with_device_and_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "SHIPPED", tmp_path)
    table().to_csv(tmp_path / "timings_h100.csv", index=False)
    gpu_kernels.main(["--quick", "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Measured on NVIDIA H100, driver 0, torch 0, triton 0, 2026-01-01; 40 timings." in text
    assert "No table" not in text
    for name in ("speed_ups_h100.png", "roofline_h100.png", "predictions_h100.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000


def test_a_format_crosses_where_bfloat16_is_as_fast() -> None:
    found = crossovers(speed_ups(Measured(device=H100, frame=table())))
    assert found["bfloat16 is as fast from rows"].tolist() == ["256", "256"]


def test_predictions_leave_each_timing_out() -> None:
    parts = dict(predictions(Measured(device=H100, frame=table())))
    assert set(parts) == {"bfloat16", "weight-only"}
    assert (parts["bfloat16"]["predicted"] >= parts["bfloat16"]["roofline"]).all()
    assert np.abs(parts["bfloat16"]["left out"]).median() < 0.1
    assert errors(list(parts.items()))["timings"].tolist() == [10, 10]


@pytest.mark.parametrize("kernel", ["torch.matmul", "weight_only_gemm"])
def test_one_kernel_with_few_timings_is_shown_without_a_fit(tmp_path: Path, kernel: str) -> None:
    few = table()
    found = Measured(device=H100, frame=few[(few["kernel"] == kernel) & (few["rows"] <= 16)])
    parts = list(predictions(found))
    assert parts == []
    assert errors(parts).empty
    assert crossovers(speed_ups(found)).empty
    gpu_kernels_figures.write_speed_ups(tmp_path / "speed_ups.png", speed_ups(found), found.label)
    gpu_kernels_figures.write_predictions(tmp_path / "predictions.png", parts, found.label)
    assert all((tmp_path / f"{name}.png").stat().st_size > 1_000 for name in ("speed_ups", "predictions"))


def test_rooflines_bound_four_bit_weights_by_four_and_end_at_one() -> None:
    line = bounds(H100).set_index("product").loc["4-bit weights (int4, e2m1, nf4, post4, pot4)"]
    assert 3.5 < line["1"] < 4
    assert line["4096"] == 1
    assert "float8 x float8" not in set(bounds(devices.get("a100"))["product"])
