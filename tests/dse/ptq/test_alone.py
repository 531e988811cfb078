import numpy as np
import pytest
import torch

from dse.ptq.alone import alone
from dse.ptq.flexround import FlexRound
from dse.ptq.gptq import Gptq
from dse.ptq.low_rank import LowRankCompensation
from dse.ptq.moments import moments
from dse.ptq.rounding import Round
from tests.dse.ptq.layer_samples import layer_data, nearest
from tests.formats.samples import assert_same_bits


def test_settings_come_back_after_an_error():
    threads = torch.get_num_threads()

    def fail():
        with alone(learning=True):
            assert torch.get_num_threads() == 1
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            raise ZeroDivisionError

    with torch.inference_mode():
        with pytest.raises(ZeroDivisionError):
            fail()
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("step", [Gptq(), Round(iterations=20), FlexRound(iterations=20), LowRankCompensation(rank=2)])
def test_results_do_not_depend_on_the_number_of_threads(step):
    data = layer_data.__wrapped__("convolution")
    quantizer, prepared = nearest(data, "e2m1:channel")
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            fresh = layer_data.__wrapped__("convolution")
            with torch.inference_mode():  # as within a pool that evaluates
                found.append((moments(fresh).second, step.apply(fresh, quantizer, prepared).values()))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert_same_bits(found[0][1], found[1][1])
