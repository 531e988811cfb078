import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dse.data import Dataset, from_arrays
from dse.models import zoo
from formats import BitatlasError
from studies.training import Epoch, Recipe, accuracy, augment, train

RECIPE = Recipe(epochs=3, peak_learning_rate=4e-3, batch=32, shift=1, flip=False, bfloat16=False)


@pytest.fixture(scope="module")
def small() -> Dataset:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 200)
    images = (generator.random((200, 1, 8, 8)) * 0.2 + labels[:, None, None, None] * 0.3).astype(np.float32)
    return from_arrays(name="small", classes=3, images=images, labels=labels, counts=(128, 8, 32, 32))


def test_training_learns(small: Dataset, tmp_path: Path) -> None:
    module = zoo.build("resnet8", small)
    history = train(module, small, replace(RECIPE, epochs=20), tmp_path / "c.pt")
    assert history[-1].loss < history[0].loss / 2
    assert accuracy(module, small.test) > 0.9


def test_an_interrupted_training_ends_as_a_whole_one(small: Dataset, tmp_path: Path) -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole = zoo.build("resnet8", small)
    expected = train(whole, small, RECIPE, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train(zoo.build("resnet8", small), small, RECIPE, tmp_path / "cut.pt", stop)
    resumed = zoo.build("resnet8", small, seed=9)
    assert train(resumed, small, RECIPE, tmp_path / "cut.pt") == expected
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True))


def test_a_checkpoint_of_another_recipe_is_not_continued(small: Dataset, tmp_path: Path) -> None:
    train(zoo.build("vit", small), small, RECIPE, tmp_path / "c.pt")
    other = replace(RECIPE, seed=1)
    shutil.copy(tmp_path / "c.pt", tmp_path / "d.pt")
    fresh = train(zoo.build("vit", small), small, other, tmp_path / "e.pt")
    assert train(zoo.build("vit", small), small, other, tmp_path / "d.pt") == fresh


def test_a_corrupt_checkpoint_is_named(small: Dataset, tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_bytes(b"no checkpoint")
    with pytest.raises(BitatlasError, match=r"^checkpoint must be whole, not a corrupt one \(.*\): .*c\.pt; remove it$"):
        train(zoo.build("resnet8", small), small, RECIPE, tmp_path / "c.pt")


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_moves_every_image_by_itself_and_loses_no_shape(flip: bool) -> None:
    images = torch.zeros(50, 1, 9, 9)
    images[:, 0, 4, 3] = 1
    moved = augment(images, replace(RECIPE, shift=2, flip=flip), torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.sum() == 50
    places = {tuple(place.tolist()) for place in moved[:, 0].nonzero()[:, 1:]}
    assert {row for row, _ in places} == {2, 3, 4, 5, 6}
    assert {column for _, column in places} == ({1, 2, 3, 4, 5, 6, 7} if flip else {1, 2, 3, 4, 5})
