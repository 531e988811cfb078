import re
from pathlib import Path

import pytest

from dse.settings import Fingerprint, SearchSettings, merge
from formats import BitatlasError

FLAGS = {"model": "resnet8", "out": "o", "formats": ("int4", "int8")}


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'model = "vit"\ntrials = 7\nseed = 3\nweight-formats = "int4, e2m1"\nactivation_formats = ["int8"]\nconstraint = "lut<=9"\n'
    )
    found = merge(config, {"seed": 5, "out": "o", "model": None})
    assert (found.model, found.trials, found.seed, found.objectives) == ("vit", 7, 5, ("kl", "lut"))
    assert (found.weights, found.activations, found.constraint) == (("int4", "e2m1"), ("int8",), ("lut<=9",))


def test_the_resolved_settings_are_a_config_file(tmp_path: Path) -> None:
    settings = merge(None, {**FLAGS, "constraint": ("lut<=1", "kl<=2"), "choose": "accuracy>=0.9"})
    (tmp_path / "search.toml").write_text(settings.to_toml())
    assert merge(tmp_path / "search.toml", {}) == settings


def test_a_device_and_what_it_is_folded_for_survive_a_file(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('device = "zu7ev"\nfps = 1000\nbudget = 0.7\n')
    settings = merge(config, FLAGS)
    assert settings.target is not None
    assert (settings.target.device.name, settings.target.fps, settings.target.budget) == ("zu7ev", 1000.0, 0.7)
    config.write_text(settings.to_toml())
    assert merge(config, {}) == settings
    assert merge(None, FLAGS).target is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model": "m", "formats": ("int4",)}, "--out must be given, by flag or in the --config file"),
        ({**FLAGS, "formats": ()}, "formats must be at least one for weights and for activations, not none"),
        ({"model": "m", "out": "o", "weight_formats": ("int4",)}, "not none: give --formats or --activation-formats"),
        ({**FLAGS, "trials": 0}, "--trials must be at least 1, not 0"),
        ({**FLAGS, "seed": -1}, "--seed must not be negative, not -1"),
        ({**FLAGS, "sampler": "tpee"}, "sampler must be a known name, not 'tpee'; nearest: tpe"),
        ({**FLAGS, "device": "zu7eg"}, "device must be a known name, not 'zu7eg'; nearest: zu9eg, zu7ev, zu3eg"),
        ({**FLAGS, "budget": 0.5}, "--device must be given with --budget, not left out"),
        ({**FLAGS, "device": "zu7ev", "budget": 0.0}, "budget must be a share of the device, above 0 and at most 1, not 0"),
        ({**FLAGS, "objectives": ("kl", "kl")}, "--objectives must be different names, at least one, not kl,kl"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(BitatlasError, match=re.escape(message)):
        merge(None, flags)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial = 3", "option must be a known name, not 'trial'; nearest: trials"),
        ('trials = "3"', "option trials must be a whole number, not '3'"),
        ("model = 3", "option model must be a string, not 3"),
        ("formats = [4]", "option formats must be a list of strings, not [4]"),
        ('device = "zu7ev"\nfps = "many"', "option fps must be a number, not 'many'"),
        ("device = 7", "option device must be a string, not 7"),
        ("formats = ", "--config must be valid TOML, not broken"),
    ],
)
def test_a_broken_config_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(BitatlasError, match=re.escape(message)) as caught:
        merge(tmp_path / "c.toml", FLAGS)
    assert str(tmp_path / "c.toml") in str(caught.value)


def test_a_fingerprint_knows_what_may_change() -> None:
    def of(**changes: object) -> Fingerprint:
        return Fingerprint.of(SearchSettings(**{**FLAGS, **changes}), {"model weights": "a" * 64}, "v")  # type: ignore[arg-type]

    assert of().differences(of(trials=5, out="p", choose="kl<=1", data_dir="/d")) == []
    assert of(seed=1).differences(of(seed=2)) == ["seed was 2, is 1"]
    assert of(weight_formats=("int4", "int8"), activation_formats=("int4", "int8"), formats=()).differences(of()) == []
    changed = Fingerprint.of(SearchSettings(**FLAGS), {"model weights": "b" * 64}, "v")  # type: ignore[arg-type]
    assert changed.differences(of()) == ["model weights was aaaaaaaaaaaa…, is bbbbbbbbbbbb…"]
