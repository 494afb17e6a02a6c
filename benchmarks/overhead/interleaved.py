"""Who trains when: one process per monitor, one of them computing at a time, bare blocks in between."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from benchmarks.overhead.monitors import BARE, KINDS
from benchmarks.overhead.paired import Block
from benchmarks.overhead.worker import Cores, Finish, Turn, Warmed, serve

_START_S = 180.0
_WARM_STEPS = 100
_FEWEST_STEPS = 3
_END_S = 40.0
"""A monitor that is still busy closing after this long is not waited for."""


@dataclass(frozen=True)
class Effort:
    """How long to measure one workload, in seconds.

    ``block_s``: one block, at least. ``warm_s``: warm-up of a monitor, at least; one that calibrates itself
    is warmed up for 100 steps as well, but for no longer than ``calibrate_s``. ``measure_s``: all blocks that
    count, bare ones included; up to twice that if a monitor had fewer than ``fewest`` blocks by then.
    """

    block_s: float
    warm_s: float
    calibrate_s: float
    measure_s: float
    fewest: int = 4


@dataclass
class Outcome:
    """What came of one workload: blocks in their order, and what the monitors said in the end."""

    blocks: list[tuple[str, Block]]
    told: dict[str, dict[str, Any]]
    failed: dict[str, str]


class Pool:
    """The processes of one workload.

    Args:
        workload: its name.
        kinds: monitors; the bare loop is added.
        folder: where they write, a sub-folder each.
        cores: where they compute and wait.
    """

    def __init__(self, workload: str, kinds: Iterable[str], folder: Path, cores: Cores) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "numpy"])
        self.failed: dict[str, str] = {}
        self._lines: dict[str, Connection] = {}
        self._processes = {}
        for kind in (BARE, *(k for k in kinds if k != BARE)):
            own = folder / kind
            own.mkdir(parents=True)
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, workload, kind, own, cores), name=kind)
            process.start()
            there.close()
            self._lines[kind], self._processes[kind] = here, process
        for kind in tuple(self._lines):
            self._answer(kind, _START_S)

    @property
    def alive(self) -> list[str]:
        """Monitors that work, without the bare loop."""
        return [k for k in self._lines if k != BARE]

    def ask(self, kind: str, order: Turn | Warmed | Finish, within_s: float = 600.0) -> Any:
        """Send an order and wait for the answer; None (and the kind is gone) if it failed."""
        try:
            self._lines[kind].send(order)
        except OSError as error:
            self._give_up(kind, str(error))
            return None
        return self._answer(kind, within_s)

    def _answer(self, kind: str, within_s: float) -> Any:
        line = self._lines[kind]
        try:
            answer = line.recv() if line.poll(within_s) else f"no answer within {within_s:.0f} s"
        except (EOFError, OSError) as error:
            answer = f"ended: {error!r}"
        if isinstance(answer, str) and answer not in ("ready", "warm"):
            self._give_up(kind, answer)
            return None
        return answer

    def _give_up(self, kind: str, why: str) -> None:
        self.failed[kind] = why
        self._lines.pop(kind).close()
        if kind == BARE:
            self.close()
            raise RuntimeError(f"the bare loop failed: {why}")

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.join(1.0 if process.name in self.failed else 5.0)
            if process.is_alive():
                process.terminate()
                process.join(5.0)


def measure(
    workload: str,
    kinds: Iterable[str],
    effort: Effort,
    folder: Path,
    cores: Cores,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Warm up, then let every monitor train in turn, the bare loop before and after each."""
    pool = Pool(workload, kinds, folder, cores)
    try:
        _warm_up(pool, effort)
        blocks = _take_turns(pool, effort, clock)
        told = {kind: pool.ask(kind, Finish(), _END_S) or {} for kind in (*pool.alive, BARE)}
    finally:
        pool.close()
    return Outcome(blocks, told, pool.failed)


def _warm_up(pool: Pool, effort: Effort) -> None:
    """All monitors, the bare loop first."""
    bare: Block = pool.ask(BARE, Turn(effort.warm_s, _FEWEST_STEPS))
    pool.ask(BARE, Warmed())
    for kind in pool.alive:
        seconds = effort.warm_s
        if KINDS[kind].calibrates:
            seconds = max(seconds, min(_WARM_STEPS * bare.step_s, effort.calibrate_s))
        if pool.ask(kind, Turn(seconds, _FEWEST_STEPS)) is not None:
            pool.ask(kind, Warmed())


def _take_turns(pool: Pool, effort: Effort, clock: Callable[[], float]) -> list[tuple[str, Block]]:
    turn = Turn(effort.block_s, 1)
    blocks: list[tuple[str, Block]] = [(BARE, pool.ask(BARE, turn))]
    used, turns = dict.fromkeys(pool.alive, 0.0), dict.fromkeys(pool.alive, 0)
    started = clock()
    while pool.alive:
        lacking = any(turns[k] < effort.fewest for k in pool.alive)
        if clock() >= started + effort.measure_s * (2 if lacking else 1):
            break
        kind = next_in_turn({k: used[k] / KINDS[k].share for k in pool.alive}, turns, effort.fewest)
        block = pool.ask(kind, turn)
        if block is None:
            continue
        blocks += [(kind, block), (BARE, pool.ask(BARE, turn))]
        used[kind] += block.seconds
        turns[kind] += 1
    return blocks


def next_in_turn(used: Mapping[str, float], turns: Mapping[str, int], fewest: int) -> str:
    """Whose turn it is: each in turn for its fewest blocks, then who used least of its share."""
    lacking = [k for k in used if turns[k] < fewest]
    if lacking:
        return min(lacking, key=lambda k: turns[k])
    return min(used, key=lambda k: used[k])


def choose_cores(pinned: bool) -> Cores:  # noqa: FBT001 - read as "pinned"
    """The least busy core for the process that trains, the others for those that wait; none: wherever."""
    if not pinned or not sys.platform.startswith("linux"):
        return Cores()
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        return Cores()
    load = psutil.cpu_percent(interval=0.5, percpu=True)
    busy = min(mine, key=lambda core: load[core])
    return Cores(frozenset({busy}), frozenset(mine) - {busy})
