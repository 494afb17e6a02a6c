"""The overhead controller, on a made-up training whose true costs are known."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.budget import Budget, kind_of
from torchwatch.config import WatchConfig
from torchwatch.schedule import LADDER, Plan, Schedule, unmeasured


@dataclass
class Training:
    """Seconds: of a bare step, and what each kind of step really costs; we see only a part of it.

    ``hidden``: true cost ÷ what our own clocks read. ``noise``: relative, of a step.
    """

    bare_s: float
    gradients_s: float
    sampled_s: float
    sentinel_s: float = 0.0
    hidden: float = 2.0
    noise: float = 0.01

    def run(self, steps: int, config: WatchConfig | None = None, layers: int = 3) -> tuple[Budget, float]:
        """The budget after a training, and the true share of the last half of it."""
        config = config or WatchConfig()
        schedule = Schedule(config)
        budget = Budget(config, schedule, layers)
        chance = random.Random(0)
        spent, whole = [], []
        for number in range(1, steps + 1):
            plan = schedule.plan(number)
            cost = self.cost(plan)
            bare = self.bare_s * (1 + chance.gauss(0, self.noise))
            spent.append(cost)
            whole.append(bare)
            if plan.plain:
                budget.plain_steps([bare + cost], cost / self.hidden)
            else:
                budget.step(plan, bare + cost, cost / self.hidden)
        half = steps // 2
        return budget, sum(spent[half:]) / sum(whole[half:])

    def cost(self, plan: Plan) -> float:
        return (
            self.gradients_s * plan.gradients
            + self.sampled_s * plan.sampled
            + self.sentinel_s * plan.sentinel
        )


def test_slow_steps_keep_gradients_at_every_step() -> None:
    budget, share = Training(bare_s=0.05, gradients_s=1e-4, sampled_s=2e-3).run(2000)
    assert budget.schedule.gradients_every == 1
    assert budget.schedule.activations_every in (10, 20)
    assert share <= 0.011


def test_heavy_probes_are_thinned_until_they_fit() -> None:
    budget, share = Training(bare_s=0.05, gradients_s=1e-4, sampled_s=0.04).run(5000)
    assert budget.schedule.gradients_every == 1
    assert budget.schedule.activations_every in (100, 200)
    assert share <= 0.011


def test_gradients_go_on_the_ladder_where_they_alone_break_the_budget() -> None:
    budget, share = Training(bare_s=3e-4, gradients_s=2e-4, sampled_s=1e-3).run(20_000)
    assert budget.schedule.gradients_every >= 100
    assert budget.schedule.activations_every >= 500
    assert share <= 0.011


def test_forced_rates_are_left_alone() -> None:
    config = WatchConfig(gradients_every=1, activations_every=5)
    budget, share = Training(bare_s=3e-4, gradients_s=2e-4, sampled_s=1e-3).run(2000, config)
    assert (budget.schedule.gradients_every, budget.schedule.activations_every) == (1, 5)
    assert share > 0.5


def test_without_a_budget_nothing_is_controlled() -> None:
    budget, _ = Training(bare_s=3e-4, gradients_s=2e-4, sampled_s=1e-3).run(2000, WatchConfig(budget=None))
    assert (budget.schedule.gradients_every, budget.schedule.activations_every) == (1, 10)
    assert budget.schedule.sentinel


@pytest.mark.parametrize("hidden", [1.0, 2.0, 3.0])
def test_self_timing_is_calibrated_by_comparing_sampled_and_other_steps(hidden: float) -> None:
    budget, _ = Training(bare_s=0.05, gradients_s=1e-4, sampled_s=0.01, hidden=hidden).run(3000)
    assert budget.factor == pytest.approx(hidden, rel=0.15)


def test_noise_does_not_pass_for_a_calibration() -> None:
    training = Training(bare_s=0.05, gradients_s=1e-5, sampled_s=1e-4, noise=0.3)
    budget, _ = training.run(1000)
    assert 1.2 <= budget.factor <= 1.8


def test_a_cheap_sentinel_stays_on_and_a_dear_one_goes_off() -> None:
    cheap, _ = Training(bare_s=0.05, gradients_s=5e-5, sampled_s=2e-3, sentinel_s=5e-5).run(1000)
    assert cheap.schedule.sentinel
    dear, share = Training(bare_s=0.05, gradients_s=5e-5, sampled_s=2e-3, sentinel_s=2e-3).run(2000)
    assert not dear.schedule.sentinel
    assert share <= 0.011


def test_the_sentinel_is_not_even_tried_on_a_deep_net_with_short_steps() -> None:
    training = Training(bare_s=0.001, gradients_s=2e-6, sampled_s=1e-5, sentinel_s=1.0)
    assert not training.run(500, layers=1000)[0].schedule.sentinel


def test_the_recorder_thread_counts() -> None:
    config = WatchConfig()
    schedule = Schedule(config)
    budget = Budget(config, schedule)
    for number in range(1, 200):
        plan = schedule.plan(number)
        budget.recorded(kind_of(plan), 1e-3 if plan.sampled else 4e-4 if plan.gradients else 0.0, 1)
        if plan.plain:
            budget.plain_steps([0.05], 1e-6)
        else:
            budget.step(plan, 0.05, 1e-6)
    cost = budget.estimate()
    assert cost is not None
    assert cost.gradients_s == pytest.approx(4e-4, rel=0.05)
    assert schedule.gradients_every > 1  # 0.4 ms of 50 ms


def test_nothing_is_estimated_before_there_are_enough_steps() -> None:
    config = WatchConfig()
    assert Budget(config, Schedule(config)).estimate() is None


def test_kinds_of_steps() -> None:
    assert kind_of(unmeasured(1)) == "plain"
    assert kind_of(unmeasured(1)._replace(gradients=True)) == "gradients"
    assert kind_of(unmeasured(1)._replace(gradients=True, sentinel=True)) == "sentinel"
    assert kind_of(unmeasured(1)._replace(gradients=True, sampled=True)) == "sampled"


@settings(max_examples=12, deadline=None)
@given(
    bare=st.floats(1e-3, 1.0),
    gradients=st.floats(1e-4, 0.5),
    sampled=st.floats(1e-4, 2.0),
    hidden=st.floats(1.0, 3.0),
)
def test_the_budget_holds_whatever_the_costs(
    bare: float, gradients: float, sampled: float, hidden: float
) -> None:
    training = Training(bare, gradients * bare * 0.1, sampled * bare, hidden=hidden, noise=0.002)
    budget, share = training.run(4000)
    assert budget.schedule.activations_every in LADDER
    assert share <= 0.0135


def test_a_first_estimate_of_cold_steps_is_corrected() -> None:
    config = WatchConfig()
    schedule = Schedule(config)
    budget = Budget(config, schedule)
    for number in range(1, 20_001):
        plan = schedule.plan(number)
        cost_s = {"sampled": 2e-3, "gradients": 2e-4, "sentinel": 3e-4, "plain": 2e-6}[kind_of(plan)]
        cost_s *= 20 if number <= 12 else 1  # everything is cold, and the recorder is busy
        budget.recorded(kind_of(plan), cost_s / 2, 1)
        budget.step(plan, 1e-3 + cost_s, cost_s)
    assert schedule.activations_every <= 5000  # by the first estimate it would be every 50,000th


def test_a_step_that_had_to_wait_does_not_count_for_all_of_it() -> None:
    budget = Budget(WatchConfig(), Schedule(WatchConfig()))
    for _ in range(15):
        budget.plain_steps([1e-3], 1e-6)
    budget.plain_steps([1e-3], 1.0)
    assert budget._kinds["plain"].mean_own() == pytest.approx((15 + 4) / 16 * 1e-6)
