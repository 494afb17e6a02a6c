"""Energy on a clock of the test's own: sums, what is extrapolated, and the labels."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.recorder.energy import STARTS_AFTER_S, Account, Energy
from torchwatch.recorder.grid import Grid
from torchwatch.recorder.meters import ESTIMATED, MEASURED, MIXED, Joules

CPU_W, RAM_W, GPU_W = 40.0, 10.0, 300.0


class Constant:
    """Meters of a machine that always draws the same."""

    def __init__(self, source: str = ESTIMATED) -> None:
        self.source, self.reads, self.closed = source, 0, False

    def read(self, elapsed_s: float) -> dict[str, Joules]:
        self.reads += 1
        return {
            "cpu": Joules(CPU_W * elapsed_s, self.source),
            "ram": Joules(RAM_W * elapsed_s, ESTIMATED),
        }

    def close(self) -> None:
        self.closed = True


class Run:
    """An energy meter, ticked once a second."""

    def __init__(
        self, meters: Constant | None = None, gpus: tuple[str, ...] = ("energy_j", "power_w")
    ) -> None:
        self.meters = meters or Constant()
        self.fields = gpus
        self.now = 0.0
        self.devices: set[int] = set()
        self.loads = 0
        self.energy = Energy("FRA", load=self._load, find=lambda _: Grid(100.0, "FRA"), timer=lambda: 0.0)

    def _load(self) -> Constant:
        self.loads += 1
        return self.meters

    def to(self, seconds: float) -> Run:
        while self.now + 1 <= seconds:
            self.now += 1
            readings = [
                {"index": i, **{k: v for k, v in self._card().items() if k in self.fields}} for i in range(2)
            ]
            self.energy.read_gpus(self.now, self.devices, readings)
            self.energy.tick(self.now)
        self.now = seconds
        return self

    def _card(self) -> dict[str, float]:
        return {"energy_j": 5_000 + GPU_W * self.now, "power_w": GPU_W}

    def interval(self) -> dict:
        return self.energy.interval(self.now)

    def end(self) -> dict:
        return self.energy.end(self.now)


def test_a_short_run_loads_nothing_and_says_nothing() -> None:
    run = Run().to(STARTS_AFTER_S - 0.1)
    assert run.interval() == {}
    assert run.end() == {}
    assert run.loads == 0


def test_the_time_before_the_start_is_extrapolated() -> None:
    run = Run().to(30)
    interval = run.interval()
    assert interval["energy_j"] == pytest.approx(30 * (CPU_W + RAM_W))
    assert interval["energy_source"] == ESTIMATED
    assert interval["energy_parts"]["cpu"]["j"] == pytest.approx(30 * CPU_W)
    assert interval["co2_kg"] == pytest.approx(1500 / 3.6e6 * 0.1)
    end = run.to(60).end()
    assert end["energy_kwh"] == pytest.approx(60 * 50 / 3.6e6)
    assert end["country"] == "FRA"
    assert end["co2_kg"] == pytest.approx(60 * 50 / 3.6e6 * 0.1)


def test_closed_intervals_keep_nothing_and_lose_nothing_to_later_ones() -> None:
    run = Run()
    assert run.to(2).interval() == {}
    assert run.to(5.5).interval() == {}
    assert run.to(12).interval()["energy_j"] == pytest.approx(6.5 * 50)
    assert run.to(13).interval()["energy_j"] == pytest.approx(50)
    assert run.to(13.25).interval()["energy_j"] == pytest.approx(0.25 * 50)
    assert run.to(20).end()["energy_kwh"] == pytest.approx(20 * 50 / 3.6e6)


def test_processor_and_memory_are_read_soon_then_seldom_then_at_the_end() -> None:
    run = Run().to(6)
    assert run.meters.reads == 1
    run.to(15)
    assert run.meters.reads == 1
    run.to(16)
    assert run.meters.reads == 2
    run.to(20).end()
    assert run.meters.reads == 3


def test_dear_readings_are_made_less_often() -> None:
    run = Run()
    ticks = itertools.count()
    run.energy._timer = lambda: 0.03 * next(ticks)  # each reading takes 30 ms
    run.to(35)
    assert run.meters.reads == 1
    run.to(36)
    assert run.meters.reads == 2


def test_a_gpu_with_a_counter_is_measured() -> None:
    run = Run()
    run.devices = {0}
    run.to(10)
    first = run.interval()
    assert first["energy_parts"]["gpu"] == {"j": pytest.approx(10 * GPU_W), "source": MIXED}
    second = run.to(20).interval()
    assert second["energy_parts"]["gpu"] == {"j": pytest.approx(10 * GPU_W), "source": MEASURED}
    assert second["energy_source"] == MIXED
    assert second["energy_j"] == pytest.approx(10 * (GPU_W + CPU_W + RAM_W))
    assert run.end()["energy_source"] == MIXED


def test_a_gpu_without_a_counter_is_estimated_from_its_power() -> None:
    run = Run(gpus=("power_w",))
    run.devices = {0}
    run.to(10).interval()
    assert run.to(20).interval()["energy_parts"]["gpu"] == {
        "j": pytest.approx(10 * GPU_W),
        "source": ESTIMATED,
    }


def test_a_gpu_that_tells_neither_does_not_count() -> None:
    run = Run(gpus=())
    run.devices = {0}
    assert set(run.to(10).interval()["energy_parts"]) == {"cpu", "ram"}


def test_only_gpus_in_use_count_and_from_then_on() -> None:
    run = Run()
    run.devices = {0}
    run.to(20).interval()
    run.devices = {0, 1}
    assert run.to(30).interval()["energy_parts"]["gpu"]["j"] == pytest.approx(20 * GPU_W)
    assert run.to(40).interval()["energy_parts"]["gpu"]["j"] == pytest.approx(20 * GPU_W)
    joules = 40 * (CPU_W + RAM_W) + (40 + 20) * GPU_W
    assert run.end()["energy_kwh"] == pytest.approx(joules / 3.6e6)


def test_a_gpu_alone_is_not_the_energy_of_the_run() -> None:
    run = Run()
    run.devices = {0}
    assert run.to(4).interval() == {}
    assert run.to(5).interval() == {}
    assert set(run.to(6).interval()["energy_parts"]) == {"gpu", "cpu", "ram"}


def test_everything_metered_is_measured() -> None:
    class Metered(Constant):
        def read(self, elapsed_s: float) -> dict[str, Joules]:
            return {k: Joules(j.amount, MEASURED) for k, j in super().read(elapsed_s).items()}

    run = Run(Metered())
    assert run.to(10).interval()["energy_source"] == MIXED  # its first seconds are not
    assert run.to(20).interval()["energy_source"] == MEASURED


def test_a_counter_that_begins_anew_takes_nothing_away() -> None:
    account = Account(0.0, 0.0)
    account.add(Joules(30.0, MEASURED), 1.0, 0.0)
    account.add(Joules(-5_000.0, MEASURED), 2.0, 0.0)
    assert account.total(2.0) == 30.0


def test_meters_that_cannot_be_had_are_said_and_the_gpu_stays() -> None:
    run = Run()

    def broken() -> Constant:
        raise ImportError("No module named 'codecarbon'")

    run.energy._load = broken
    run.devices = {0}
    assert set(run.to(10).interval()["energy_parts"]) == {"gpu"}
    assert run.energy.problems == [
        "processor and memory are left out: ImportError: No module named 'codecarbon'"
    ]


def test_a_country_without_a_factor_is_said() -> None:
    run = Run()
    run.energy._find = lambda _: Grid(475.0, "world", "no CO2 factor for country 'XXX'")
    run.to(10)
    assert run.energy.problems == ["no CO2 factor for country 'XXX'"]
    assert run.end()["country"] == "world"


def test_closing_closes_the_meters() -> None:
    run = Run().to(10)
    run.energy.close()
    assert run.meters.closed
    run.energy.close()


moments = st.lists(st.floats(0.01, 20.0), min_size=1, max_size=30)


@given(moments, moments, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_whatever_the_power_intervals_are_never_negative_and_add_up(reads, closes, begins, waits) -> None:
    """Intervals that close after the first reading share out everything since the last one before it."""
    starts = begins + waits
    account = Account(begins, starts)
    events = sorted(
        [(starts + t, "read", p) for t, p in zip(itertools.accumulate(reads), itertools.cycle(closes))]
        + [(t, "close", 0.0) for t in itertools.accumulate(closes)]
    )
    given_until, taken, used, unread = 0.0, 0.0, 0.0, None
    before = starts
    for at, what, power in events:
        if what == "read":
            amount = power * (at - before)
            account.add(Joules(amount, MEASURED), at, given_until)
            if unread is None:
                early = min(max(given_until, begins), at)
                unread = power * (at - early) - amount
            used, before = used + amount, at
        else:
            joules = account.take(at)
            given_until = at
            if joules is not None:
                assert joules.amount >= 0
                taken += joules.amount
    rest = account.take(before)
    if rest is not None:
        taken += rest.amount
        assert taken >= used + unread - 1e-6 * (1 + used)
        assert math.isfinite(taken)


def test_the_account_is_exact_when_power_is_constant() -> None:
    account = Account(0.0, 2.0)
    account.add(Joules(30.0, MEASURED), 5.0, 0.0)
    assert account.take(5.0) == Joules(50.0, MIXED)
    assert account.take(6.0) == Joules(10.0, MEASURED)
    account.add(Joules(20.0, MEASURED), 7.0, 6.0)
    assert account.take(7.0) == Joules(10.0, MEASURED)
    assert account.total(8.0) == 80.0
