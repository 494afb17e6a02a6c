"""What watching costs, as it is told: within a third of a point of the truth, the start apart."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from torchwatch.budget import Budget, kind_of
from torchwatch.calibration import PRIOR, Factor
from torchwatch.config import WatchConfig
from torchwatch.recorder.accounts import Account
from torchwatch.records import Step, Steps
from torchwatch.schedule import Schedule

SURE = Factor(1.0, 0.0)


class Cpu:
    """CPU time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(number: int, took_s: float = 1.0, watch_s: float = 0.0) -> Step:
    return Step(step=number, step_time_s=took_s, watch_time_s=watch_s)


def test_both_threads_count() -> None:
    cpu = Cpu()
    account = Account(start_steps=0, cpu=cpu)
    cpu.now = 0.03
    account.took([step(1, 1.0, 0.01), step(2, 1.0, 0.01)])
    cpu.now = 0.04  # the interval's own checks
    assert account.close(2.0, SURE) == {"watch_share": pytest.approx(0.03), "watch_share_error": 0.0}
    assert account.end(SURE)["watch_share"] == pytest.approx(0.03)


def test_the_factor_is_that_of_measured_steps_and_plain_ones_keep_the_prior() -> None:
    account = Account(start_steps=0, cpu=Cpu())
    plain = Steps(step=[2, 3], step_time_s=np.array([1.0, 1.0]), watch_time_s=np.array([0.01, 0.01]))
    account.took([step(1, 1.0, 0.1), plain])
    told = account.close(3.0, Factor(2.0, 0.1))
    assert told["watch_share"] == pytest.approx((0.1 * 2.0 + 0.02 * PRIOR.value) / 3)
    assert told["watch_share_error"] == pytest.approx(math.hypot(0.1 * 0.1, 0.02 * PRIOR.error) / 3, rel=0.01)


def test_the_first_steps_are_told_apart() -> None:
    cpu = Cpu()
    account = Account(start_steps=2, cpu=cpu)
    cpu.now = 5.0
    account.took([step(1, 4.0, 3.0), step(2, 2.0, 1.0)])
    cpu.now = 5.1
    account.took([step(3), step(4)])
    assert account.close(8.0, SURE)["watch_share"] == pytest.approx(0.05)
    end = account.end(SURE)
    assert end["watch_share"] == pytest.approx(0.05)
    assert end["watch_start_s"] == pytest.approx(9.0)


def test_a_line_in_which_the_start_ends_is_shared_out() -> None:
    cpu = Cpu()
    account = Account(start_steps=2, cpu=cpu)
    cpu.now = 0.4
    line = Steps(step=[1, 2, 3, 4], step_time_s=[1.0] * 4, watch_time_s=[0.1, 0.1, 0.1, None])
    account.took([line])
    assert account.close(4.0, SURE)["watch_share"] == pytest.approx((0.15 * PRIOR.value + 0.2) / 2)


def test_a_run_that_is_all_start_has_no_share() -> None:
    account = Account(start_steps=10, cpu=Cpu())
    account.took([step(1, 1.0, 0.5)])
    assert account.close(1.0, SURE) == {"watch_share": None, "watch_share_error": None}
    assert account.end(SURE) == {"watch_share": None, "watch_share_error": None, "watch_start_s": 0.5}


def test_what_goes_with_time_counts_while_the_loop_trains() -> None:
    """A pause of nine tenths: readings of the machine in it held up no step. Loading comes once."""
    cpu = Cpu()
    account = Account(start_steps=0, cpu=cpu)
    account.took([step(1, 10.0)])
    for _ in range(100):
        cpu.now += 0.01
        account.timely(0.01)
    cpu.now += 0.5
    account.timely(0.5, once=0.5)
    cpu.now += 0.02
    account.took([step(2, 0.0)])
    assert account.close(100.0, SURE)["watch_share"] == pytest.approx((0.1 * 1.0 + 0.02) / 10.0)
    assert account.end(SURE)["watch_start_s"] == pytest.approx(0.5)


@pytest.mark.parametrize("hidden", [1.0, 1.5, 2.5])
@pytest.mark.parametrize("own_s", [2e-4, 1.5e-3])
def test_what_is_told_is_within_a_third_of_a_point_of_the_truth(hidden: float, own_s: float) -> None:
    """Steps of 50 ms with noise and drift of several percent, a costly start and pauses for evaluation."""
    config = WatchConfig()
    schedule, cpu, chance = Schedule(config), Cpu(), random.Random(0)
    budget, account = Budget(config, schedule), Account(config.dense_steps, cpu)
    cost = busy = 0.0
    told: dict[str, Any] = {}
    for number in range(1, 3001):
        plan = schedule.plan(number)
        own = own_s * plan.gradients + 10 * own_s * plan.sampled + 0.5 * (number == 1)
        bare = 0.05 * (1 + chance.gauss(0, 0.03) + 0.15 * math.sin(number / 200))
        took = bare + own * hidden
        recorder = 3e-4 * plan.gradients + 5e-5
        budget.recorded(kind_of(plan), recorder, 1)
        if plan.plain:
            budget.plain_steps([took], own)
        else:
            budget.step(plan, took, own)
        cpu.now += recorder
        account.took([step(number, took, own)])
        cpu.now += 2e-3 * (number % 20 == 0)
        account.timely(2e-3 * (number % 20 == 0))
        if number > config.dense_steps:
            cost, busy = cost + own * hidden + recorder + 1e-4, busy + took
        if number % 200 == 0:
            cpu.now += 600 * 2e-3  # ten minutes of evaluation
            account.timely(600 * 2e-3)
            told = account.close(200 * 0.05 + 600, budget.calibration.factor)
            assert told["watch_share"] is not None
    told = account.end(budget.calibration.factor)
    assert told["watch_share"] == pytest.approx(cost / busy, abs=0.003)
    assert told["watch_start_s"] > 0.5
