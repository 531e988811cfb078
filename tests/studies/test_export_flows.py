"""The study of exports: what each target and client says of an assignment, refusals with their reasons."""

from pathlib import Path

import pandas as pd
import pytest

from dse.assignment import parse_quantizer
from dse.experiment import prepare
from dse.export import targets
from dse.models import loading
from studies import export_flows, export_flows_data
from studies.export_flows_data import Subject


@pytest.fixture(scope="module")
def subject() -> Subject:
    experiment = prepare(loading.load("resnet8", "digits"))
    pair = parse_quantizer("post4", "weight"), parse_quantizer("int8", "activation")
    return Subject(experiment=experiment, assignment=experiment.preparation.uniform("resnet8", "digits", *pair), kind="mixed")


def test_every_target_has_a_row_and_refusals_say_why(subject: Subject, tmp_path: Path) -> None:
    found = {str(row["target"]): row for row in export_flows_data.rows(subject, tmp_path)}
    assert list(found) == ["qdq", "codebook", "qdq,codebook", "qonnx", "integer"]
    assert "refused: weight exported by qdq must be" in str(found["qdq"]["result"])
    assert "not post4" in str(found["integer"]["result"])
    assert str(found["codebook"]["result"]).startswith("predictions equal on ")
    assert found["codebook"]["client"] == "onnxruntime"
    assert float(str(found["codebook"]["KiB"])) > 20


def test_whole_numbers_are_compared_bit_for_bit(subject: Subject, tmp_path: Path) -> None:
    pair = parse_quantizer("int4", "weight"), parse_quantizer("int8", "activation")
    assignment = subject.experiment.preparation.uniform("resnet8", "digits", *pair)
    whole = Subject(experiment=subject.experiment, assignment=assignment, kind="mixed")
    model = targets.export(whole.experiment, assignment, ("integer",))
    said = export_flows_data._integers(whole, model, tmp_path)
    assert said.startswith(
        "bit for bit equal to the hardware mode on 300 of 300 samples; fake quantization, biases on the same LSBs: "
    )
    assert "; with float biases: predictions equal on " in said


def test_the_page_counts_what_ran_and_what_was_refused(tmp_path: Path) -> None:
    row = {"model": "m", "assignment": "shifts", "kinds": 1, "functions": 0, "seconds": 1.0}
    frame = pd.DataFrame(
        [
            row | {"target": "qdq", "client": "onnxruntime", "result": "predictions equal on 3 of 3 samples", "KiB": 3.0},
            row | {"target": "integer", "client": "", "result": "refused: weight must be another"},
            row | {"target": "qonnx", "client": "finn-plus", "result": "not run: no environment", "KiB": 5.0},
        ]
    )
    text = export_flows.page(frame, ["- one"], "Made by hand.")
    assert "1 exports were run by a client of their own, 1 pairs of assignment and target or client were refused" in text
    assert "refused: weight must be another" in text
    export_flows.write_sizes(tmp_path / "sizes.png", frame)
    assert (tmp_path / "sizes.png").stat().st_size > 5_000
