from __future__ import annotations

from torchwatch.history import History
from torchwatch.history.rows import Sums
from torchwatch.records import Interval, Profile


def test_sums_count_what_was_thinned():
    sums = Sums[float]({"all": lambda v: v, "odd": lambda v: v if v % 2 else None}, most=8)
    for value in range(1, 101):
        sums.add(value, float(value))
    steps, values = sums.series("all")
    assert len(steps) <= 8
    assert values.tolist() == [n * (n + 1) / 2 for n in steps.tolist()]
    assert steps[-1] == 100
    assert sums.series("odd").values[-1] == 2500


def test_energy_of_intervals_adds_up_and_is_known_for_some_of_the_time():
    history = History()
    for index in range(5000):
        known = index >= 2
        history.add(
            Interval(
                index=index, first_step=index + 1, last_step=index + 1, steps=1, duration_s=2.0, busy_s=1.0,
                samples=10, energy_j=3.0 if known else None, co2_kg=0.5 if known else None,
            )
        )  # fmt: skip
    last = {n: float(history.interval_sums(n).values[-1]) for n in ("busy_s", "energy_j", "co2_kg")}
    assert last == {"busy_s": 5000, "energy_j": 4998 * 3, "co2_kg": 4998 / 2}
    assert history.interval_sums("metered_s").values[-1] == 4998 * 2
    assert history.interval_sums("metered_samples").values[-1] == 49980
    assert len(history.interval_sums("energy_j").steps) <= 4096


def test_nothing_is_summed_where_there_is_no_interval():
    assert History().interval_sums("energy_j").values.size == 0


def test_the_last_profiles_are_kept():
    history = History()
    assert not history.seen("profile")
    for step in range(20):
        history.add(Profile(step=step))
    assert [p.step for p in history.profiles] == list(range(4, 20))
    assert history.seen("profile")
