import re
from dataclasses import replace
from pathlib import Path

import pytest

from dse.assignment import Assignment, LayerAssignment, parse_quantizer, read
from formats import BitatlasError

LAYERS = ("stem", "scores")
GOOD = """{"model": "m", "data": "d", "layers": {
  "stem": {"weight": "int4", "activation": "uint8:tensor:absmax"},
  "scores": {"weight": "e2m1", "activation": "int4"}}}"""


def quantizers(weight: str, activation: str) -> LayerAssignment:
    return LayerAssignment(weight=parse_quantizer(weight, "weight"), activation=parse_quantizer(activation, "activation"))


def test_an_assignment_survives_its_file(tmp_path: Path) -> None:
    layers = {
        "stem": quantizers("int4:group32:absmax", "uint8:tensor:percentile99.9"),
        "scores": replace(quantizers("e2m1:tensor", "pot4"), accumulator="fixed:20:wrap"),
    }
    written = Assignment(model="m", data="d", layers=layers, figures={"kl": 0.5})
    written.write(tmp_path / "a.json")
    found = read(tmp_path / "a.json", LAYERS)
    assert found == written
    assert found.digest == written.digest


def test_only_layers_without_whole_number_accumulators_get_exact_ones() -> None:
    layers = {"stem": quantizers("int4", "int8"), "scores": replace(quantizers("int4", "int8"), accumulator="fixed:20")}
    written = Assignment(model="m", data="d", layers=layers)
    found = written.in_whole_numbers()
    assert [layer.accumulator for layer in found.layers.values()] == ["exact", "fixed:20"]
    assert found.digest != written.digest


def test_toml_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(GOOD)
    (tmp_path / "a.toml").write_text(
        'model = "m"\ndata = "d"\n[layers]\nstem = {weight = "int4", activation = "uint8:tensor:absmax"}\n'
        'scores = {weight = "e2m1", activation = "int4"}\n'
    )
    assert read(tmp_path / "a.json", LAYERS) == read(tmp_path / "a.toml", LAYERS)


def test_parts_left_out_take_the_roles_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(GOOD)
    found = read(tmp_path / "a.json", LAYERS, products=["scores"])
    assert str(found.layers["stem"].weight) == "int4:channel:mse"
    assert str(found.layers["scores"].weight) == "e2m1:tensor:mse"  # a product's second operand is an activation
    assert str(found.layers["scores"].activation) == "int4:tensor:mse"


def test_the_digest_depends_on_quantizers_alone() -> None:
    base = Assignment(model="m", data="d", layers={"stem": quantizers("int4", "int4")})
    assert base.digest == Assignment(model="x", data="y", layers=base.layers, figures={"kl": 1}).digest
    assert base.digest != Assignment(model="m", data="d", layers={"stem": quantizers("int4", "uint4")}).digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("int4", "intt4"), "format must be a known name, not 'intt4'; nearest: int4"),
        (('"stem"', '"stm"'), "layer must be a known name, not 'stm'; nearest: stem"),
        (
            ('"weight": "int4", ', ""),
            "a layer must hold weight, activation and, if need be, accumulator and steps, not ['activation'] (layer 'stem'",
        ),
        (('"weight": "int4"', '"weight": "int4", "w": 1'), "not ['activation', 'w', 'weight'] (layer 'stem'"),
        (
            ("uint8:tensor:absmax", "uint8:channel"),
            "granularity of an activation must be tensor, not channel (uint8:channel) (layer 'stem'",
        ),
        (("uint8:tensor:absmax", "uint8:tensor:max"), "scale choice must be a known name, not 'max'"),
        (('"model": "m"', '"modell": "m"'), "keys of an assignment must be model, data, figures, steps, layers, not 'modell'"),
        (('"layers"', '"layer"'), "keys of an assignment must be"),
        (
            ('"weight": "int4"', '"weight": "int4", "accumulator": "int32"'),
            "accumulator must be a known name, not 'int32'; nearest: float32 (layer 'stem'",
        ),
        (
            ('"weight": "int4"', '"weight": "int4", "accumulator": "float16"'),
            "accumulator must be float32, exact or fixed:BITS[:wrap], not 'float16' (layer 'stem'",
        ),
        (
            ('"weight": "int4"', '"weight": "int4", "accumulator": "fixed:1"'),
            "width of a fixed accumulator must be at least 2 bits, not 1 (layer 'stem'",
        ),
        (("}}}", "}}"), "file must be valid JSON, not broken (Expecting ',' delimiter: line 3 column"),
        ((GOOD, "[1]"), "file must hold a table, not a list"),
    ],
)
def test_a_broken_file_is_told_what_is_wrong_and_where(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(GOOD.replace(*change, 1))
    with pytest.raises(BitatlasError, match=re.escape(message)) as caught:
        read(path, LAYERS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_layer_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(GOOD)
    with pytest.raises(BitatlasError, match=r"^an assignment must name every layer, not lack 'head' and 1 more: "):
        read(tmp_path / "a.json", (*LAYERS, "head", "tail"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BitatlasError, match=r"^file must be readable, not fail \(No such file or directory\): .*none\.json$"):
        read(tmp_path / "none.json", LAYERS)
