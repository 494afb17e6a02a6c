"""All instruments together, and in the records of a run."""

from __future__ import annotations

import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers_watch import record
from torchwatch import WatchConfig
from torchwatch.recorder.energy import STARTS_AFTER_S, Energy
from torchwatch.recorder.grid import Grid, grid
from torchwatch.recorder.instruments import Instruments
from torchwatch.recorder.meters import Joules
from torchwatch.recorder.stack import digest
from torchwatch.records import End, Interval, Layout, Note, System


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Cards:
    """GPUs that the test makes up."""

    def __init__(self, *readings: dict[str, Any]) -> None:
        self.readings, self.closed = list(readings), False

    def read(self) -> list[dict[str, Any]]:
        return self.readings

    def coverage(self) -> str:
        return "ok"

    def close(self) -> None:
        self.closed = True


class Steady:
    """100 W of processor, nothing else."""

    closed = False

    def read(self, elapsed_s: float) -> dict[str, Joules]:
        return {"cpu": Joules(100 * elapsed_s, "estimated"), "ram": Joules(0.0, "estimated")}

    def close(self) -> None:
        self.closed = True


def instruments(
    clock: Clock, config: WatchConfig | None = None, cards: Cards | None = None, meters: Steady | None = None
) -> Instruments:
    energy = Energy(None, load=lambda: meters or Steady(), find=lambda _: Grid(360.0, "world"))
    return Instruments(config or WatchConfig(), clock, gpus=cards or Cards(), energy=energy)


def test_a_system_record_has_all_of_it() -> None:
    clock = Clock()
    asked = instruments(clock, cards=Cards({"index": 0, "name": "H200"}))
    clock.now = 1.0
    fields = asked.system()
    assert isinstance(System(**fields), System)
    assert 0 < fields["uss_bytes"] <= fields["rss_bytes"]
    assert fields["gpus"] == [{"index": 0, "name": "H200"}]
    assert fields["cpu_percent"] >= 0
    assert re.fullmatch("[0-9a-f]{8}", fields["stack"])
    clock.now = 2.0
    assert "uss_bytes" not in asked.system()  # not read: not repeated as if it were


def test_a_short_run_and_a_machine_without_gpus() -> None:
    fields = instruments(Clock()).system()
    assert "uss_bytes" not in fields
    assert "gpus" not in fields


def test_the_stack_is_of_the_thread_that_trains() -> None:
    here = threading.get_ident()
    asked = instruments(Clock())
    seen: list[tuple[str | None, ...]] = []

    def look() -> None:
        for _ in range(10_000):  # until this thread waits for that one
            seen[:] = [(digest(here), asked.system()["stack"], digest(here))]
            if seen[0][0] == seen[0][2]:
                return

    other = threading.Thread(target=look)
    other.start()
    other.join()
    assert len(set(seen[0])) == 1


def test_an_interval_has_memory_share_and_energy() -> None:
    clock = Clock()
    asked = instruments(clock)
    for clock.now in range(1, 11):
        asked.system()
    fields = asked.interval()
    assert isinstance(Interval(**fields), Interval)
    assert fields["energy_j"] == pytest.approx(1000)
    assert fields["co2_kg"] == pytest.approx(1000 / 3.6e6 * 0.36)
    assert fields["uss_bytes"] > 0
    assert "alloc_retries" not in fields
    clock.now = 10.1
    assert asked.interval()["cpu_percent"] == fields["cpu_percent"]  # too short to say another
    end = asked.end()
    assert isinstance(End(**end), End)
    assert end["energy_kwh"] == pytest.approx(1010 / 3.6e6)


def test_retries_of_the_allocator_are_those_of_the_interval(monkeypatch) -> None:
    retries = [7]

    def books(_: int) -> dict[str, Any]:
        none = {"all": {"current": 1, "peak": 1}}
        return {"allocated_bytes": none, "reserved_bytes": none, "num_alloc_retries": retries[0]}

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda.memory, "memory_stats_as_nested_dict", books)
    clock = Clock()
    asked = instruments(clock)
    clock.now, retries[0] = 1.0, 9
    assert asked.interval()["alloc_retries"] == 2
    clock.now = 2.0
    assert asked.interval()["alloc_retries"] == 0


def test_gpus_in_use_cost_energy(monkeypatch) -> None:
    clock = Clock()
    asked = instruments(clock, cards=Cards({"index": 0, "power_w": 400.0}))
    asked._memory = SimpleNamespace(  # type: ignore[assignment]
        devices={0}, retries=None, read=lambda _: {"uss_bytes": None}, read_unique=lambda _: False
    )
    for clock.now in range(1, 11):
        asked.system()
    assert asked.interval()["energy_j"] == pytest.approx(10 * 500)
    clock.now = 20
    assert asked.end()["energy_kwh"] == pytest.approx(20 * 500 / 3.6e6)


def test_energy_can_be_switched_off() -> None:
    clock = Clock()
    asked = instruments(clock, WatchConfig(energy=False))
    for clock.now in range(1, 11):
        asked.system()
    assert "energy_j" not in asked.interval()
    assert asked.end() == {}
    assert asked.coverage() == {"gpus": "ok", "energy": "off"}


def test_an_instrument_that_fails_is_missing_and_noted_and_the_others_go_on() -> None:
    def broken() -> dict[str, Any]:
        raise OSError("/proc is gone")

    asked = instruments(Clock())
    asked._machine = SimpleNamespace(read=broken)  # type: ignore[assignment]
    fields = asked.system()
    assert fields["rss_bytes"] > 0
    assert "cpu_percent" not in fields
    assert asked.problems() == [("machine", "machine cannot be read: OSError: /proc is gone")]
    assert asked.problems() == []


def test_closing_closes_all() -> None:
    clock, cards, meters = Clock(), Cards(), Steady()
    asked = instruments(clock, cards=cards, meters=meters)
    clock.now = STARTS_AFTER_S
    asked.system()
    asked.close()
    assert cards.closed
    assert meters.closed


def train(model: nn.Module, until: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        step = 0
        while until(step):
            loss = model(torch.randn(16, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
            step += 1

    return body


def of(kind: type, records: list[Any]) -> list[Any]:
    return [r for r in records if isinstance(r, kind)]


def test_the_records_of_a_short_run(tmp_path) -> None:
    config = WatchConfig(terminal=False, system_s=0.01, flush_s=0.01)
    model = nn.Linear(8, 4)
    records = record(model, train(model, lambda step: step < 40), tmp_path / "r", config)
    assert not of(Note, records)
    system = of(System, records)[0]
    assert system.stack is not None
    assert system.machine_cpu_percent is None or 0 <= system.machine_cpu_percent <= 100
    assert of(End, records)[0].energy_kwh is None


def test_arithmetic_and_shares_are_in_the_records(tmp_path) -> None:
    model = nn.Linear(8, 4)
    config = WatchConfig(terminal=False, interval_steps=10)
    records = record(model, train(model, lambda step: step < 20), tmp_path / "r", config)
    layout = of(Layout, records)[0]
    assert layout.flops_per_step == 2 * 16 * 8 * 4 * 2
    assert layout.peak_flops_per_s is None
    assert layout.coverage["energy"] == "ok"
    interval = of(Interval, records)[0]
    assert interval.flops_per_s == pytest.approx(
        layout.flops_per_step * interval.steps / interval.busy_s, rel=1e-6
    )
    assert interval.mfu is None
    shares = (interval.forward_share, interval.backward_share, interval.optimizer_share)
    assert all(0 < share < 1 for share in shares)
    assert sum(shares) < 1


@pytest.mark.slow
def test_a_real_run_of_eight_seconds(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 4))
    before = set(threading.enumerate())
    started = time.perf_counter()
    body = train(model, lambda step: time.perf_counter() - started < 8)
    records = record(model, body, tmp_path / "r", WatchConfig(terminal=False, country="DEU"))
    assert set(threading.enumerate()) == before
    assert not of(Note, records)
    end = of(End, records)[0]
    assert (end.energy_source, end.country) == ("estimated", "DEU")
    assert 1 < end.energy_kwh * 3.6e6 / end.time_s < 1000  # watts
    assert end.co2_kg == pytest.approx(end.energy_kwh * grid("DEU").g_per_kwh / 1000)
    known = [i for i in of(Interval, records) if i.energy_j is not None]
    assert known
    assert sum(i.energy_j for i in known) <= end.energy_kwh * 3.6e6 * 1.001
    last = known[-1]
    assert set(last.energy_parts) == {"cpu", "ram"}
    assert last.joules_per_step == pytest.approx(last.energy_j / last.steps, rel=1e-6)
