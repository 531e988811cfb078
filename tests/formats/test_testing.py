"""The conformance suite passes what is right and catches what is wrong."""

import dataclasses

import numpy as np
import pytest

import formats
from formats import codebook
from formats.testing import CHECKS, check_format

NAMES = [
    "int2",
    "int4",
    "int8",
    "int16",
    "int8_narrow",
    "uint1",
    "uint8",
    "uint16",
    "e1m2",
    "e2m0",
    "e2m1",
    "e3m2",
    "e4m3",
    "e5m10",
    "e8m2",
    "ue2m2",
    "ue4m4",
    "pot3",
    "pot4",
    "pot8",
    "post4",
    "post9",
    "ulog2_4",
    "ulog2_8",
    "ulogsqrt2_5",
    "ternary",
    "binary",
    "nf4",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e4m3b11fnuz",
    "float8_e8m0fnu",
    "float6_e2m3fn",
    "float4_e2m1fn",
    "float16",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_family_passes(name):
    check_format(formats.scalar(name))


def test_a_format_from_outside_passes():
    check_format(codebook.build("mine", (-4, -1, -0.25, 0, 0.25, 1, 4, 9), "eight levels"))


def broken(**changes):
    return dataclasses.replace(formats.scalar("e2m1"), **changes)


@pytest.mark.parametrize(
    "fmt",
    [
        broken(closed_form=dataclasses.replace(formats.scalar("e2m1").closed_form, mantissa_bits=2)),
        broken(closed_form=dataclasses.replace(formats.scalar("e2m1").closed_form, minimum_exponent=1)),
        broken(exponent=formats.scalar("e2m1").exponent + 1),
        broken(significand=formats.scalar("e2m1").significand[:8]),
        broken(closed_form=formats.scalar("int4").closed_form),
    ],
    ids=["mantissa", "subnormals", "exponent", "shape", "kind"],
)
def test_a_closed_form_or_table_that_disagrees_is_caught(fmt):
    with pytest.raises((AssertionError, ValueError, IndexError)):
        check_format(fmt)


def test_every_check_says_what_it_holds():
    assert all(check.__doc__ for check in CHECKS)
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS) == 8
    assert np.isfinite(formats.scalar("e2m1").values).all()
