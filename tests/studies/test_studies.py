"""Every study runs by its command and leaves its report."""

from pathlib import Path

import pandas as pd
import pytest

from formats import BitatlasError
from studies import quickstart, train_zoo
from studies.training import Recipe


def test_the_quickstart_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart, "RESULTS", tmp_path / "results")
    quickstart.main(["--quick", "--out", str(tmp_path / "report")])
    page = (tmp_path / "report" / "README.md").read_text()
    assert "Made by `python -m studies.quickstart`" in page
    assert "predictions equal on 300 of 300 samples" in page
    assert len(pd.read_csv(tmp_path / "report" / "trials.csv")) == 60
    assert (tmp_path / "report" / "front.png").read_bytes().startswith(b"\x89PNG")
    assert "peak memory" in capsys.readouterr().out


def test_the_quickstart_searches_enough() -> None:
    assert quickstart.settings(quick=False, folder=Path("x")).trials >= 150


def test_the_zoo_is_trained_into_a_folder_of_its_own_when_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_zoo, "RECIPES", {("mobilenet", "digits"): Recipe(epochs=9, peak_learning_rate=1e-3, bfloat16=False)})
    train_zoo.main(["--quick", "--out", str(tmp_path)])
    assert (tmp_path / "weights" / "mobilenet-digits.safetensors").exists()
    assert pd.read_csv(tmp_path / "accuracy.csv")["epochs"].tolist() == [2]
    assert "| mobilenet | digits |" in (tmp_path / "README.md").read_text()
    with pytest.raises(BitatlasError, match="--only must be one of mobilenet-digits, not vit"):
        train_zoo.main(["--quick", "--out", str(tmp_path), "--only", "vit"])
