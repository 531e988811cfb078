import pytest

from formats.registry import scalar
from hwmodels.fpga.ebops import ebops_per_mac, fixed_point_bits


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        *(("int8", 8), ("uint4", 4), ("ternary", 2), ("binary", 1), ("int5_narrow", 5)),
        ("e2m1", 5),  # 0 to 12 halves, and a sign
        ("e4m3", 19),  # 2**-9 to 480
        ("ue2m1", 4),
        ("pot4", 8),  # 2**-6 to 1, and a sign
    ],
)
def test_values_as_fixed_point_numbers(name: str, bits: int) -> None:
    assert fixed_point_bits(scalar(name)) == bits


def test_a_multiplication_counts_the_product_of_its_widths() -> None:
    assert ebops_per_mac(scalar("int4"), scalar("uint8")) == 32
    assert ebops_per_mac(scalar("e2m1"), scalar("e2m1")) == 25
