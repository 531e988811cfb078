"""Steps that change the float network: on each network of the zoo, the function, the layers and the operands stay."""

from functools import cache

import numpy as np
import pytest

from dse import network
from dse.calibrate import calibrate
from dse.data import Split
from dse.models import loading
from dse.network import Network
from dse.ptq.awq import Awq
from dse.ptq.equalize import Equalize
from dse.ptq.rotate import Rotate
from dse.ptq.smooth import Smooth
from dse.ptq.step import NetworkStep

STEPS = [Equalize(), Smooth(), Awq(grid=5), Rotate(), Rotate(kind="klt")]


@cache
def of_the_zoo(model: str) -> tuple[Network, Split]:
    subject = loading.load(model, "digits")
    return network.build(model, subject.module, subject.dataset.sample_shape), subject.dataset.validation


# every channel of a resnet8 passes a ReLU: test_rotate says that it is refused
@pytest.mark.parametrize(
    ("model", "step"),
    [(model, step) for model in ("resnet8", "mobilenet", "vit") for step in STEPS if model != "resnet8" or step.name != "rotate"],
    ids=str,
)
def test_the_function_stays_and_the_tensors_do_not(model: str, step: NetworkStep) -> None:
    original, split = of_the_zoo(model)
    images = split.images[:64]
    changed, expected = step.apply(original, images), original.logits(split.images)
    # on other samples than those that the step saw, too
    np.testing.assert_allclose(changed.logits(split.images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    pairs = list(zip(original.layers, changed.layers, strict=True))
    assert all((before.name, before.kind, before.operands) == (after.name, after.kind, after.operands) for before, after in pairs)
    assert any(not np.allclose(before.weight, after.weight) for before, after in pairs if before.weight is not None)
    few = Split(images=images, labels=split.labels[:64])
    assert calibrate(changed, few).keys() == calibrate(original, few).keys()


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_steps_follow_each_other_and_give_the_same_bits_again(step: NetworkStep) -> None:
    original, split = of_the_zoo("vit")
    images = split.images[:64]
    before = original.digest
    equalized = Equalize().apply(original, images)
    digests = {step.apply(equalized, images).digest for _ in range(2)}
    assert len(digests) == 1
    assert digests != {before}
    assert original.digest == before


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_number_of_threads_does_not_matter(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, split = of_the_zoo("vit")
    expected = [step.apply(original, split.images[:64]).digest for step in STEPS]
    monkeypatch.setenv("BITATLAS_THREADS", threads)
    assert [step.apply(original, split.images[:64]).digest for step in STEPS] == expected
