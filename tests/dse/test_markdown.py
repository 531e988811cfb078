"""Plain text stays plain in Markdown."""

import pandas as pd
import pytest

from dse.markdown import escaped, escaped_table


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight_bits [bit] of block1.conv2", "weight_bits [bit] of block1.conv2"),
        ("<script>a|b</script>", r"\<script\>a\|b\</script\>"),
        ("a * b and `c` _d_", r"a \* b and \`c\` \_d\_"),
        ("see [this](that)", r"see [this\](that)"),
        ("# no heading", r"\# no heading"),
        ("- no item", r"\- no item"),
        ("12. no item", r"12\. no item"),
        ("12 trials\nin two lines", "12 trials in two lines"),
    ],
)
def test_what_would_mark_is_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_table_has_texts_escaped_and_numbers_short() -> None:
    frame = pd.DataFrame({"a|b": ["x|y", "_z"], "figure": [0.123456789, 2.0]})
    assert escaped_table(frame).splitlines() == [
        r"| a\|b | figure |",
        "| --- | --- |",
        r"| x\|y | 0.123457 |",
        r"| \_z | 2 |",
    ]
