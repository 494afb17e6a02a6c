"""One process that trains one workload under one monitor, and computes only while it is told to."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.overhead.monitors import KINDS
from benchmarks.overhead.monitors.base import Monitor
from benchmarks.overhead.paired import Block
from benchmarks.overhead.workloads import Workload, build


@dataclass(frozen=True)
class Turn:
    """An order to train for at least so many seconds and steps."""

    seconds: float
    steps: int


@dataclass(frozen=True)
class Warmed:
    """An order: what comes from now on counts."""


@dataclass(frozen=True)
class Finish:
    """An order to close the monitor, to report, and to end."""


@dataclass(frozen=True)
class Cores:
    """Where to compute during a turn, and where to wait between turns. Both empty: wherever."""

    busy: frozenset[int] = frozenset()
    idle: frozenset[int] = frozenset()


def serve(orders: Connection, workload: str, kind: str, folder: Path, cores: Cores) -> None:
    """Follow orders until :class:`Finish`; an error is sent back as a string."""
    try:
        torch.set_num_threads(1)
        trained = build(workload)
        place = Place(cores)
        monitor = KINDS[kind].make(trained, folder)
        place.exile_children()
        place.leave()
        orders.send("ready")
        _obey(orders, trained, monitor, place)
    except Exception:  # noqa: BLE001 - it is the parent that reports it
        orders.send(traceback.format_exc())


def _obey(orders: Connection, workload: Workload, monitor: Monitor, place: Place) -> None:
    waiting_s = 0.0
    stopped = others_cpu_s()
    while True:
        match orders.recv():
            case Turn(seconds, steps):
                place.enter()
                waiting_s += others_cpu_s() - stopped
                block = train(workload, monitor, seconds, steps)
                stopped = others_cpu_s()
                place.leave()
                orders.send(block)
            case Warmed():
                monitor.warmed_up()
                waiting_s, stopped = 0.0, others_cpu_s()
                orders.send("warm")
            case Finish():
                # Threads that wake while others train do so on another core, in no block; a monitor that
                # counts its threads' CPU time counts them.
                orders.send({**monitor.close(), "waiting_cpu_s": waiting_s})
                return


def train(
    workload: Workload,
    monitor: Monitor,
    seconds: float,
    steps: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Block:
    """Train for at least so many seconds and steps."""
    monitor.turn()
    run, before, after = workload.run, monitor.before_step, monitor.after_step
    done, cpu = 0, time.process_time()
    started = now = clock()
    until = started + seconds
    while now < until or done < steps:
        run(before, after)
        done += 1
        now = clock()
    return Block(done, now - started, time.process_time() - cpu)


def others_cpu_s() -> float:
    """CPU time of all threads of this process but the calling one."""
    return time.process_time() - time.thread_time()


class Place:
    """Moves this process between the core that trains and the cores where the others wait."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores

    def enter(self) -> None:
        """All threads of this process onto the busy core."""
        self._move(self._cores.busy)

    def leave(self) -> None:
        """All threads away from it."""
        self._move(self._cores.idle)

    def exile_children(self) -> None:
        """Processes that a monitor started stay away from the busy core for good."""
        import psutil

        if self._cores.idle:
            for child in psutil.Process().children(recursive=True):
                child.cpu_affinity(list(self._cores.idle))

    @staticmethod
    def _move(cores: frozenset[int]) -> None:
        if not cores:
            return
        for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - names are enough, and it is quicker
            try:
                os.sched_setaffinity(int(thread), cores)
            except ProcessLookupError:
                continue  # it has just ended
