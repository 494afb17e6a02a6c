"""Energy and CO2 of the run: what is metered, what is estimated, and which is which.

GPUs are read from their own energy counters (else their power is summed up), processor and memory as
:mod:`torchwatch.recorder.meters` says. Parts are read at their own pace; in between, and before the first
reading, the last known power is taken, and what was taken too much or too little shows in the next interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torchwatch.intervals import tidy
from torchwatch.recorder.grid import Grid, grid
from torchwatch.recorder.meters import ESTIMATED, JOULES_PER_KWH, MEASURED, MIXED, Joules, ProcessMeters

STARTS_AFTER_S = 5.0
"""A run that ends before this records no energy: codecarbon is not worth loading for it (seconds)."""

_SOON_S = 1.0
_EVERY_S = 10.0
_SHARE = 1e-3
_SHORTEST_S = 0.1
"""Processor and memory are read a second after the start, then every ten seconds, or less often where a
reading takes more than a thousandth of that (machines with thousands of processes); at the end once more."""


class Meters(Protocol):
    """Processor and memory, see :class:`~torchwatch.recorder.meters.ProcessMeters`."""

    def read(self, elapsed_s: float) -> dict[str, Joules]:
        """Energy since the reading before, by part."""

    def close(self) -> None:
        """Leave no trace."""


class Account:
    """Joules of one part, at any time.

    Args:
        begins_s: since when the part has been in use (seconds since the start of the run).
        starts_s: when it was read for the first time; the time before is extrapolated.

    Attributes:
        read_s: when it was read last.
    """

    def __init__(self, begins_s: float, starts_s: float) -> None:
        self.read_s = starts_s
        self._begins_s, self._unread_s = begins_s, max(starts_s - begins_s, 0.0)
        self._total_j = self._given_j = 0.0
        self._power_w: float | None = None
        self._source = ESTIMATED
        self._extrapolated = False

    def add(self, joules: Joules, now: float, given_until_s: float) -> None:
        """Take in the energy since the reading before.

        Intervals up to ``given_until_s`` are closed: what they might have had is theirs for ever.
        """
        elapsed_s = now - self.read_s
        if elapsed_s <= 0:
            return
        amount = max(joules.amount, 0.0)  # a counter begins anew with its driver
        first, self._power_w = self._power_w is None, amount / elapsed_s
        self._total_j += amount
        self.read_s, self._source = now, joules.source
        if first:
            closed_s = min(max(given_until_s - self._begins_s, 0.0), now - self._begins_s)
            self._total_j += self._power_w * self._unread_s
            self._given_j = self._power_w * closed_s
            self._extrapolated = closed_s < self._unread_s

    def total(self, now: float) -> float | None:
        """Joules until now, None before the second reading."""
        if self._power_w is None:
            return None
        return self._total_j + self._power_w * max(now - self.read_s, 0.0)

    def take(self, now: float) -> Joules | None:
        """What has not been given to an interval yet, and where it is from."""
        total = self.total(now)
        if total is None:
            return None
        amount = max(total - self._given_j, 0.0)
        self._given_j += amount
        source = together({self._source, ESTIMATED}) if self._extrapolated else self._source
        self._extrapolated = False
        return Joules(amount, source)


class Energy:
    """Energy and CO2 of this process.

    Of GPUs only those count on which this process holds memory, each with all that it uses. Nothing is said
    before processor and memory are known, ``STARTS_AFTER_S`` and a second into the run.

    Args:
        country: see :class:`~torchwatch.WatchConfig`.
        load: makes the meters of processor and memory; called once, after ``STARTS_AFTER_S``.
        find: the factor of a country.
        timer: seconds, for the cost of a reading.

    Attributes:
        problems: what could not be had, in sentences.
        loading_s: CPU time that loading codecarbon took.
    """

    def __init__(
        self,
        country: str | None,
        load: Callable[[], Meters] = ProcessMeters,
        find: Callable[[str | None], Grid] = grid,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._country, self._load, self._find, self._timer = country, load, find, timer
        self._accounts: dict[str, Account] = {}
        self._meters: Meters | None = None
        self._grid: Grid | None = None
        self._read_s = self._due_s = self._given_until_s = 0.0
        self._sources: set[str] = set()
        self._counters: dict[int, float] = {}
        self._unused_s: dict[int, float] = {}
        self.problems: list[str] = []
        self.loading_s = 0.0

    def read_gpus(self, now: float, devices: set[int], readings: list[dict[str, Any]]) -> None:
        """Take in what :class:`~torchwatch.recorder.gpus.Gpus` read.

        Args:
            now: seconds since the start of the run.
            devices: indices of the GPUs on which this process holds memory.
            readings: of all visible GPUs.
        """
        for reading in readings:
            if "energy_j" in reading or "power_w" in reading:
                self._read_gpu(now, reading, used=reading["index"] in devices)

    def tick(self, now: float) -> None:
        """About once a second: read processor and memory, if it is time to."""
        if self._grid is None and now >= STARTS_AFTER_S:
            self._start(now)
        elif self._meters is not None and now >= self._due_s:
            self._read(now)

    def interval(self, now: float) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.Interval`, for the time since this was asked before."""
        taken = {name: account.take(now) for name, account in self._accounts.items()}
        self._given_until_s = now
        if not self._known(taken) or self._grid is None:
            return {}
        parts: dict[str, Joules] = {}
        for name, joules in taken.items():
            if joules is not None:
                part = name.partition(" ")[0]
                parts[part] = _sum(parts[part], joules) if part in parts else joules
        amount = sum(j.amount for j in parts.values())
        source = together({j.source for j in parts.values()})
        self._sources.add(source)
        return {
            "energy_j": tidy(amount),
            "energy_source": source,
            "energy_parts": {k: {"j": tidy(j.amount), "source": j.source} for k, j in parts.items()},
            "co2_kg": _co2_kg(amount, self._grid),
        }

    def end(self, now: float) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.End`, for the whole run."""
        if self._meters is not None and now - self._read_s >= _SHORTEST_S:
            self._read(now)
        totals = {name: account.total(now) for name, account in self._accounts.items()}
        if not self._known(totals) or self._grid is None:
            return {}
        self.interval(now)  # what no interval had is from somewhere, too
        amount = sum(t for t in totals.values() if t is not None)
        return {
            "energy_kwh": tidy(amount / JOULES_PER_KWH),
            "energy_source": together(self._sources),
            "co2_kg": _co2_kg(amount, self._grid),
            "country": self._grid.country,
        }

    def close(self) -> None:
        """Leave no trace."""
        if self._meters is not None:
            self._meters.close()
            self._meters = None

    def _known(self, taken: Mapping[str, object]) -> bool:
        """Whether processor and memory are known, where they have meters; GPUs follow as they are used."""
        present = [taken[name] for name in ("cpu", "ram") if name in taken]
        return None not in present and any(value is not None for value in taken.values())

    def _start(self, now: float) -> None:
        before_s = time.thread_time()
        try:
            self._load_all(now)
        finally:
            self.loading_s += time.thread_time() - before_s

    def _load_all(self, now: float) -> None:
        self._grid = self._find(self._country)
        if self._grid.problem is not None:
            self.problems.append(self._grid.problem)
        try:
            self._meters = self._load()
        except Exception as error:  # noqa: BLE001 - another library's
            self.problems.append(f"processor and memory are left out: {type(error).__name__}: {error}")
            return
        self._accounts |= {"cpu": Account(0.0, now), "ram": Account(0.0, now)}
        self._read_s, self._due_s = now, now + _SOON_S

    def _read(self, now: float) -> None:
        started = self._timer()
        found = self._meters.read(now - self._read_s) if self._meters is not None else {}
        for part, joules in found.items():
            self._accounts[part].add(joules, now, self._given_until_s)
        self._read_s = now
        self._due_s = now + max(_EVERY_S, (self._timer() - started) / _SHARE)

    def _read_gpu(self, now: float, reading: dict[str, Any], *, used: bool) -> None:
        index, counter = reading["index"], reading.get("energy_j")
        before = self._counters.get(index)
        if counter is not None:
            self._counters[index] = counter
        account = self._accounts.get(f"gpu {index}")
        if account is None and not used:
            self._unused_s[index] = now
        elif account is None:
            self._accounts[f"gpu {index}"] = Account(self._unused_s.get(index, 0.0), now)
        elif counter is not None and before is not None:
            account.add(Joules(counter - before, MEASURED), now, self._given_until_s)
        elif "power_w" in reading:
            power = Joules(reading["power_w"] * (now - account.read_s), ESTIMATED)
            account.add(power, now, self._given_until_s)


def together(sources: set[str]) -> str:
    """Where a sum is from whose parts are from these sources."""
    return next(iter(sources)) if len(sources) == 1 else MIXED


def _sum(one: Joules, other: Joules) -> Joules:
    return Joules(one.amount + other.amount, together({one.source, other.source}))


def _co2_kg(joules: float, grid: Grid) -> float | None:
    return tidy(joules / JOULES_PER_KWH * grid.g_per_kwh / 1000)
