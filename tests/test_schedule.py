"""What is measured in which step."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.config import WatchConfig
from torchwatch.schedule import LADDER, Schedule, unmeasured


def sampled(schedule: Schedule, first: int, last: int) -> list[int]:
    return [n for n in range(first, last + 1) if schedule.plan(n).sampled]


def test_the_first_steps_are_measured_in_full_and_then_every_tenth() -> None:
    schedule = Schedule(WatchConfig())
    assert sampled(schedule, 1, 40) == [*range(1, 11), 20, 30, 40]
    assert all(schedule.plan(n).gradients for n in range(41, 60))


def test_rare_statistics_come_with_every_tenth_sample() -> None:
    schedule = Schedule(WatchConfig(dense_steps=0, rare_every=3))
    assert [n for n in range(1, 101) if schedule.plan(n).rare] == [10, 40, 70, 100]


def test_a_warning_zooms_in_for_fifty_steps_and_at_most_fifty_in_a_thousand() -> None:
    schedule = Schedule(WatchConfig(activations_every=1000, dense_steps=0))
    schedule.request_zoom()
    assert sampled(schedule, 1, 200) == [*range(1, 51)]
    schedule.request_zoom()
    assert sampled(schedule, 201, 1002) == [1000]  # the first warning used the thousand up
    schedule.request_zoom()
    assert len(sampled(schedule, 1003, 1999)) == 50  # the old zoom is forgotten as it leaves the window
    assert schedule.zoomed == 100


def test_zoom_can_be_switched_off() -> None:
    schedule = Schedule(WatchConfig(zoom_steps=0, dense_steps=0))
    schedule.request_zoom()
    assert sampled(schedule, 1, 20) == [10, 20]


@settings(deadline=None)
@given(
    gradients=st.sampled_from(LADDER),
    activations=st.sampled_from(LADDER),
    dense=st.integers(0, 12),
    start=st.integers(1, 3000),
)
def test_nothing_is_due_before_the_step_that_is_due_next(
    gradients: int, activations: int, dense: int, start: int
) -> None:
    config = WatchConfig(gradients_every=gradients, activations_every=activations, dense_steps=dense)
    due = Schedule(config).next_due(start)
    assert due >= start
    schedule = Schedule(config)
    assert all(schedule.plan(n).plain for n in range(start, due))
    assert not Schedule(config).plan(due).plain


def test_profiled_steps_are_not_sampled() -> None:
    schedule = Schedule(WatchConfig(profile_every=10, profile_steps=2, dense_steps=20))
    plans = [schedule.plan(n) for n in range(1, 31)]
    assert [p.number for p in plans if p.profiled] == [10, 11, 20, 21, 30]
    assert not any(p.sampled for p in plans if p.profiled)


def test_an_unmeasured_plan_is_plain() -> None:
    assert unmeasured(7).plain
    assert unmeasured(7).number == 7


def sparse(every: int) -> Schedule:
    schedule = Schedule(WatchConfig())
    schedule.activations_every = every
    return schedule


def test_where_the_budget_looks_rarely_there_are_a_few_early_looks_each_followed_by_four_light_steps() -> (
    None
):
    schedule = sparse(100_000)
    plans = [schedule.plan(n) for n in range(1, 300)]
    assert [p.number for p in plans if p.sampled] == [*range(1, 11), 20, 50, 100, 200]
    light = [p.number for p in plans if p.sentinel]
    assert light == [n + after for n in (20, 50, 100, 200) for after in range(1, 5)]
    assert all(plans[n - 1].gradients for n in light)


def test_every_fourth_regular_look_is_a_stretch_that_replaces_the_next() -> None:
    schedule = sparse(300)
    plans = [schedule.plan(n) for n in range(1, 3601)]
    regular = [p.number for p in plans if p.sampled and p.number % 300 == 0]
    assert regular == [300, 900, 1200, 1500, 1800, 2400, 2700, 3000, 3300]
    stretches = [n for n in regular if plans[n].sentinel]
    assert stretches == [300, 1800, 3300]


def test_a_look_out_of_turn_replaces_a_regular_one_unless_it_is_urgent() -> None:
    schedule = sparse(30)
    sampled(schedule, 1, 59)
    schedule._debt = 0
    assert schedule.look(urgent=False)
    assert not schedule.look(urgent=False)
    assert sampled(schedule, 60, 61) == [60]
    assert schedule.look(urgent=True)
    assert sampled(schedule, 62, 64) == [62]


def test_a_look_leaves_forced_rates_alone() -> None:
    schedule = Schedule(WatchConfig(activations_every=30, dense_steps=0))
    assert schedule.look(urgent=False)
    assert sampled(schedule, 1, 91) == [1, 30, 60, 90]


@given(every=st.sampled_from(LADDER[4:]), first=st.integers(11, 3000), look=st.booleans())
@settings(deadline=None, max_examples=50)
def test_no_look_is_missed_between_steps_that_are_due(every: int, first: int, look: bool) -> None:
    schedule = sparse(every)
    schedule.gradients_every = 50_000
    schedule.sentinel = False
    for number in range(1, first):
        schedule.plan(number)
    if look:
        schedule.look(urgent=True)
    due = schedule.next_due(first)
    assert all(schedule.plan(n).plain for n in range(first, min(due, first + 5000)))
