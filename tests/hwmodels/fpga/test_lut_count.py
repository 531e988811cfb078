import random

import numpy as np
import pytest

from hwmodels.fpga.lut_count import function_luts, lookup_luts, needed_inputs


@pytest.mark.parametrize("inputs", range(1, 6))
def test_an_input_matters_where_turning_it_turns_the_function(inputs: int) -> None:
    generator = random.Random(inputs)
    for _ in range(50):
        mask = generator.randrange(2**inputs)  # a function of these inputs alone
        values = [generator.randrange(2) for _ in range(2**inputs)]
        table = [values[code & mask] for code in range(2**inputs)]
        matters = sum(any(table[code] != table[code ^ (1 << i)] for code in range(2**inputs)) for i in range(inputs))
        assert needed_inputs(np.array(table, np.int8), np.ones(2**inputs, np.bool_)) == matters


def test_an_input_does_not_matter_where_nobody_minds() -> None:
    # equal to input 1 but for a code that does not occur
    values, known = np.array([0, 0, 1, 0], np.int8), np.array([True, True, True, False])
    assert needed_inputs(values, known) == 1
    assert needed_inputs(values, np.ones(4, np.bool_)) == 2


@pytest.mark.parametrize(("inputs", "luts"), [(0, 0), (1, 0), (2, 1), (6, 1), (7, 3), (8, 5), (9, 11), (10, 21)])
def test_luts_of_a_function(inputs: int, luts: float) -> None:
    assert function_luts(inputs) == luts


def test_wires_are_free_and_every_other_bit_is_a_lut() -> None:
    assert lookup_luts((0, 1, 2, 3), 2) == 0  # the code itself
    assert lookup_luts((0, 1, 3, 2), 2) == 1  # the upper bit is a wire, the lower an exclusive or
    assert lookup_luts((0, None, 3, 2), 2) == 1
    assert lookup_luts((5, 5, 5, None), 3) == 0
