from itertools import product

import numpy as np

from dse.ptq.descent import descend


def test_no_single_exchange_and_no_pair_is_left():
    draws = np.random.default_rng(0)
    causes = draws.standard_normal((8, 7))
    second = causes.T @ causes / 8
    error, steps = draws.standard_normal((3, 7)), draws.standard_normal((3, 7))
    start = draws.random((3, 7)) < 0.5
    found = descend(error, second, steps, start)

    def cost(flipped, row):
        distance = error[row] + flipped * steps[row]
        return distance @ second @ distance

    for row in range(3):
        assert cost(found[row], row) < cost(start[row], row)
        for first, other in product(range(7), repeat=2):
            changed = found[row].copy()
            changed[first] = not changed[first]
            if other != first:
                changed[other] = not changed[other]
            assert cost(changed, row) >= cost(found[row], row) * (1 - 1e-6)


def test_wide_rows_change_one_at_a_time(monkeypatch):
    second = np.array([[1.0, -0.9], [-0.9, 1.0]])  # both flips together gain, either alone loses
    error, steps, start = np.full((1, 2), 1.0), np.full((1, 2), -0.9), np.zeros((1, 2), bool)
    assert descend(error, second, steps, start).tolist() == [[True, True]]
    monkeypatch.setattr("dse.ptq.descent.PAIRED_COLUMNS", 1)
    assert descend(error, second, steps, start).tolist() == [[False, False]]
