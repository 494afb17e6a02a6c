"""rnn-hidden-ratio: a state far larger than what is read."""

import pytest
import torch
from torch import nn

from tests.checks.architecture.real import recorded
from tests.helpers_checks import assert_fires, assert_quiet, run_check

SLUG = "rnn-hidden-ratio"


def run(core: nn.Module):
    return recorded(core, torch.randn(2, 5, core.input_size))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_fires_at_sixteen_times(kind):
    alert = assert_fires(SLUG, run(kind(2, 32)), layer="", severity="info", since=(0, 1))
    assert alert.title == "32 hidden numbers for an input of 2"
    assert (alert.value, alert.threshold) == (16, 16)


def test_near_miss_one_less():
    assert_quiet(SLUG, run(nn.LSTM(2, 31)))
    assert_fires(SLUG, run(nn.LSTM(2, 31)), limits={"ratio": 15})


def test_fires_on_a_cell():
    assert_fires(SLUG, recorded(nn.GRUCell(2, 40), torch.randn(2, 2)))


def test_the_guard_for_small_states():
    assert_quiet(SLUG, run(nn.LSTM(1, 20)), limits={"hidden": 32})
    assert_fires(SLUG, run(nn.LSTM(1, 40)), limits={"hidden": 32})


def test_models_without_recurrence_are_not_judged():
    engine, alerts = run_check(SLUG, recorded(nn.Linear(2, 64), torch.randn(2, 2)))
    assert not alerts
    assert "the model has no recurrent layers" in engine.not_run()[SLUG]
