"""Terms are averaged over what they count, and counts are those of the answers a state can predict."""

import pytest
import torch
from accelerate import Accelerator

from hf_evl_ecg.distillation.meter import TermMeter, count_answer_tokens


def test_answer_tokens_without_the_one_that_nothing_predicts():
    labels = torch.tensor([[7, -100, 5, 6], [-100, -100, -100, 8], [-100, -100, -100, -100]])
    assert count_answer_tokens(labels).tolist() == [3, 3, 2]


def test_means_are_weighted_and_start_anew():
    meter = TermMeter(Accelerator(cpu=True))
    loss = torch.tensor(2.0, requires_grad=True)
    meter.add({"ot": loss, "ce": torch.tensor(1.0)}, weight=3)
    meter.add({"ot": torch.tensor(6.0)}, weight=torch.tensor(1.0))
    meter.count += 4
    assert meter.means() == {"ce": pytest.approx(0.75), "ot": pytest.approx(3.0)}
    assert (meter.count, meter.means()) == (0, {})
