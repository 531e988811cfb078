"""The zoo's weights are what the table says, and nothing broken gets loaded."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from dse import data
from dse.data import Dataset
from dse.evaluate import figures
from dse.models import loading, weights_file, zoo
from dse.network import build
from formats import BitatlasError

TARGETS = {
    ("resnet8", "digits"): 0.97,
    ("mobilenet", "digits"): 0.97,
    ("vit", "digits"): 0.95,
    ("resnet8", "fashion-mnist"): 0.925,
    ("mobilenet", "fashion-mnist"): 0.90,
    ("vit", "fashion-mnist"): 0.88,
}
TABLE = pd.read_csv(zoo.WEIGHTS_FOLDER / "accuracy.csv").set_index(["model", "data"])


@pytest.mark.parametrize(("model", "data_name"), TARGETS)
def test_shipped_weights_reach_the_accuracy_in_the_table(model: str, data_name: str, request: pytest.FixtureRequest) -> None:
    dataset: Dataset = request.getfixturevalue(data_name.replace("-", "_"))
    module = zoo.load(model, dataset)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    logits = build(model, module, dataset.sample_shape).logits(dataset.test.images)
    found = figures(logits, logits, dataset.test.labels).accuracy
    row = TABLE.loc[(model, data_name)]
    assert found == pytest.approx(row["test_accuracy"], abs=2.5 / len(dataset.test))  # another machine's sums may tip a sample
    assert found >= TARGETS[model, data_name]
    assert row["parameters"] == parameters < 300_000


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the weights of mobilenet on digits, to break."""
    shutil.copy(zoo.weights_path("mobilenet", "digits"), tmp_path)
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    return tmp_path / "mobilenet-digits.safetensors"


def refuse(message: str, digits: Dataset) -> None:
    with pytest.raises(BitatlasError, match=re.escape(message)):
        zoo.load("mobilenet", digits)


def test_a_missing_file_is_named(broken: Path, digits: Dataset) -> None:
    broken.unlink()
    refuse(f"weights file must exist, not be missing: {broken}", digits)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 100])
def test_a_corrupt_file_is_named(broken: Path, digits: Dataset, content: bytes) -> None:
    broken.write_bytes(content)
    refuse("weights file must be whole safetensors, not a corrupt one", digits)


def test_a_cut_file_is_named(broken: Path, digits: Dataset) -> None:
    broken.write_bytes(broken.read_bytes()[:-100])
    refuse("weights file must be whole safetensors, not a corrupt one", digits)


def test_weights_that_do_not_fit_are_named(broken: Path, digits: Dataset) -> None:
    module = zoo.build("mobilenet", digits)
    metadata = {"model": "mobilenet", "data": "digits"}
    module.classifier = nn.Linear(64, 11)
    weights_file.save(module, broken, metadata)
    refuse("must be (10", digits)
    module = zoo.build("mobilenet", digits)
    module.extra = nn.Linear(1, 1)
    weights_file.save(module, broken, metadata)
    refuse("weights file must hold only the model's tensors, not 'extra.", digits)
    module = zoo.build("mobilenet", digits)
    del module.classifier
    weights_file.save(module, broken, metadata)
    refuse("weights file must hold the tensor 'classifier.", digits)
    module = zoo.build("mobilenet", digits)
    module.classifier.weight.data[0, 0] = torch.nan  # type: ignore[union-attr]
    weights_file.save(module, broken, metadata)
    refuse("tensor 'classifier.weight' must be finite, not NaN or Inf", digits)
    weights_file.save(zoo.build("mobilenet", digits), broken, {"model": "mobilenet", "data": "fashion-mnist"})
    refuse("weights file must be of mobilenet on digits, not of mobilenet on fashion-mnist", digits)


def test_an_unknown_model_names_the_nearest_and_the_way_to_ones_own() -> None:
    own = "or your own as package.module:factory, or FILE.onnx"
    message = f"model must be a known name, not 'resnet'; nearest: resnet8, mobilenet; {own}"
    with pytest.raises(KeyError, match=f"^{re.escape(message)}$"):
        loading.load("resnet", "digits")


OWN = """
import numpy as np, torch
from dse.data import from_arrays
def factory():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int64)
    return torch.nn.Linear(3, 2), from_arrays(name="own", classes=2, images=x, labels=labels, counts=(10, 10, 10, 10))
def wrong():
    return torch.nn.Linear(3, 2)
def raising():
    raise RuntimeError("no weights here")
def double():
    return torch.nn.Linear(3, 2).double(), factory()[1]
def wide():
    return torch.nn.Linear(3, 5), factory()[1]
def other():
    return torch.nn.Linear(4, 2), factory()[1]
class Pair(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x), x
def pair():
    return Pair(3, 2), factory()[1]
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return "my_networks"


def test_ones_own_model_is_found_in_the_working_folder(own_module: str) -> None:
    subject = loading.load(f"{own_module}:factory", None)
    assert (subject.dataset.name, subject.model, subject.module.training) == ("own", "my_networks:factory", False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such_module:factory", "--model must name an importable module, not 'no_such_module' (looked in "),
        ("my_networks:factori", "factory in my_networks must be a known name, not 'factori'; nearest: factory"),
        ("my_networks:wrong", "factory must return (torch.nn.Module, dse.data.Dataset), not Linear: my_networks:wrong"),
        (
            "my_networks:raising",
            "factory must return a model and its data, not fail (RuntimeError: no weights here): my_networks:raising",
        ),
        ("my_networks:double", "parameters must be float32, not torch.float64 in 'weight'; call .float(): my_networks:double"),
        ("my_networks:wide", "model must return a tensor of shape (2, 2) for 2 samples, not (2, 5): my_networks:wide"),
        ("my_networks:pair", "model must return a tensor of shape (2, 2) for 2 samples, not tuple: my_networks:pair"),
        (
            "my_networks:other",
            "model must run on samples of shape (3,), not fail (RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        ),
        (":factory", "--model must be a zoo name or package.module:factory, not ':factory'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_told_why(own_module: str, model: str, message: str) -> None:
    with pytest.raises(BitatlasError, match=re.escape(message)):
        loading.load(model, None)


def test_the_example_of_the_readme_is_a_usable_model() -> None:
    subject = loading.load("studies.own_model:factory", None)
    logits = build("own", subject.module, subject.dataset.sample_shape).logits(subject.dataset.test.images)
    assert figures(logits, logits, subject.dataset.test.labels).accuracy > 0.93


def test_a_digest_is_of_the_weights_and_of_what_is_done_with_them(digits: Dataset) -> None:
    def digest(seed: int, eps: float = 1e-5) -> str:
        module = zoo.build("vit", digits, seed=seed)
        module.norm.eps = eps  # type: ignore[union-attr, assignment]
        return build("vit", module, digits.sample_shape).digest

    assert len({digest(0), digest(0), digest(1), digest(0, eps=1e-3)}) == 3
    assert data.load("digits").digest == digits.digest
