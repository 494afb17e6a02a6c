"""Killed at any moment, or with a full disk: what was written reads back, and little is missing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.helpers_crash import Child, Job, Server, lines_of
from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.records import Alert, End, Record, decode, encode
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 4
WHILE_STARTING = 0.1
"""Share of the children that are killed while they start, the others after their first step."""
PAUSES = (0.0, 0.002, 0.03)
"""Seconds between steps: as fast as it goes, fast enough for batched lines, slow enough for a line a step."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def steps_of(records: list[Record]) -> list[int]:
    """The step numbers in the file, in its order."""
    return [step.step for step in steps_in(records)]


def due(times: Any, killed_at: float) -> int:
    """The last step that had to be in the file: a second ago its successor was complete, so it was closed."""
    return max(int(np.count_nonzero((times > 0) & (times <= killed_at - 1.0))) - 1, 0)


def check_survivor(job: Job, killed_at: float) -> tuple[int, int]:
    """Everything that must hold of the file of a killed run; how many steps it has, and how many alerts."""
    lines = list(lines_of(job.run))
    assert all(decode(line) for line in lines)
    wanted = due(job.times(), killed_at)
    if not lines:
        assert wanted == 0
        assert job.shown("sink") == job.shown("callback") == []
        return 0, 0
    records = assert_live_equals_replay(job.run, killed=True)
    assert len(records) == len(lines)
    numbers = steps_of(records)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= wanted
    alerts = {encode(record) for record in records if isinstance(record, Alert)}
    assert {line for who in ("sink", "callback") for line in job.shown(who) if line.endswith(b"\n")} <= alerts
    told = {f"step {a.step:,}  {a.check}  {a.title}" for a in map(decode, alerts) if isinstance(a, Alert)}
    for line in (Path(job.folder) / "stderr").read_text().splitlines():
        assert "  loss-nonfinite  " not in line or any(words in line for words in told)
    return len(numbers), len(alerts)


def kill_at_random_moments(server: Server, folder: Path, kills: int, seed: int) -> list[tuple[int, int]]:
    """Kill that many children, a few at a time, each at a moment of its own."""
    chance = random.Random(seed)
    survivors = []
    for first in range(0, kills, AT_ONCE):
        moments: list[tuple[float, Child]] = []
        for number in range(first, min(first + AT_ONCE, kills)):
            child = server.start(Job(str(folder / str(number)), chance.choice(PAUSES)))
            if chance.random() < WHILE_STARTING:
                moments.append((time.monotonic() + chance.uniform(0.0, 0.1), child))
            else:
                child.wait_for_a_step()
                moments.append((time.monotonic() + chance.uniform(0.0, 2.5), child))
        for moment, child in sorted(moments, key=lambda pair: pair[0]):
            time.sleep(max(0.0, moment - time.monotonic()))
            killed_at = child.kill()
            survivors.append(check_survivor(child.job, killed_at))
    return survivors


def assert_they_had_something_to_lose(survivors: list[tuple[int, int]]) -> None:
    """The kills came in the middle of things: most runs had steps, and many had alerts."""
    assert sum(steps > 0 for steps, _ in survivors) >= len(survivors) * 0.5
    assert sum(alerts > 0 for _, alerts in survivors) >= len(survivors) * 0.25


def test_killed_at_eight_random_moments(server: Server, tmp_path: Path) -> None:
    assert_they_had_something_to_lose(kill_at_random_moments(server, tmp_path, kills=8, seed=1))


@pytest.mark.slow
def test_killed_at_fifty_random_moments(server: Server, tmp_path: Path) -> None:
    assert_they_had_something_to_lose(kill_at_random_moments(server, tmp_path, kills=50, seed=2))


def test_killed_while_the_loop_rests_all_but_its_newest_step_are_there(
    server: Server, tmp_path: Path
) -> None:
    """Steps in which nothing was measured are not kept back until the loop goes on."""
    child = server.start(Job(str(tmp_path), 0.0, rests_after=30))
    times, give_up = child.job.times(), time.monotonic() + 10.0
    while times[30] == 0 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(max(0.0, times[30] + 1.5 - time.monotonic()))
    steps, _ = check_survivor(child.job, child.kill())
    assert steps == 29


def test_the_deadline_is_counted_from_the_step_after() -> None:
    """The measure itself: step n is closed by step n + 1, and must be there one second later."""
    times = np.zeros(10)
    times[1:6] = [100.0, 100.5, 101.0, 101.5, 101.9]
    assert due(times, killed_at=102.0) == 2
    assert due(times, killed_at=102.6) == 3
    assert due(times, killed_at=100.0) == 0


def check_refilled(job: Job) -> None:
    """After a disk was full for a while: readable, the loss is counted, both sides of the gap are there."""
    copy = Path(job.folder) / "done"
    records = list(read_records(copy))
    end = records[-1]
    done = int(np.count_nonzero(job.times()))
    assert isinstance(end, End)
    assert end.status == "finished"
    assert end.steps == done
    numbers = steps_of(records)
    assert numbers == sorted(set(numbers))
    assert numbers[:10] == list(range(1, 11))
    assert numbers[-1] == done
    assert not end.complete
    assert end.lost_lines > 0
    assert len(numbers) < done
    said = (Path(job.folder) / "stderr").read_text()
    assert said.count("training goes on") == 2  # as it happens, and as a warning at the end


def small_filesystem(folder: Path) -> tuple[str, ...] | None:
    """A command prefix under which ``folder`` is a file system of 256 kB; None where nobody may mount."""
    folder.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size=256k tmpfs '{folder}'"
    prefix = ("unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        return None
    return prefix


def test_the_file_may_not_grow_for_a_while(server: Server, tmp_path: Path) -> None:
    child = server.start(Job(str(tmp_path), 0.002, disk="limit"))
    child.wait()
    check_refilled(child.job)


def test_a_real_file_system_fills_and_empties(server: Server, tmp_path: Path) -> None:
    """Where no file system may be mounted, a file size limit (another number, the same moments) stands in."""
    prefix = small_filesystem(tmp_path / "disk")
    if prefix is None:
        child = server.start(Job(str(tmp_path), 0.002, disk="limit"))
        child.wait()
    else:
        with Server(*prefix) as small:
            child = small.start(Job(str(tmp_path), 0.002, disk="filesystem"))
            child.wait()
    check_refilled(child.job)


class FullDisk:
    """``os.write`` of a disk with ``room`` bytes left for one file: it writes what fits, then fails."""

    def __init__(self, path: Path, room: int) -> None:
        self.path, self.room = path, room
        self.failures = 0
        self._write = os.write
        self.noticed = threading.Event()

    def write(self, fd: int, data: bytes) -> int:
        """Stands in for os.write."""
        if not self._is_ours(fd):
            return self._write(fd, data)
        if self.room <= 0:
            self.failures += 1
            self.noticed.set()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(fd, bytes(data)[: self.room])
        self.room -= written
        return written

    def _is_ours(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.path.stat())
        except OSError:
            return False


def test_a_disk_that_is_full_is_warned_of_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Short writes tear a line; what comes after the gap is whole lines again."""
    path = tmp_path / "run.jsonl"
    disk = FullDisk(path, room=5000)
    monkeypatch.setattr(os, "write", disk.write)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        steps = train_while_it_fills_and_empties(disk)
    reader = read_records(path)
    *records, end = list(reader)
    assert isinstance(end, End)
    assert (end.status, end.steps, end.complete) == ("finished", steps, False)
    assert end.lost_lines > 0
    assert reader.torn_lines <= 1
    assert steps_of(records)[-1] == steps
    assert capfd.readouterr().err.count("No space left") == 1


def train_while_it_fills_and_empties(disk: FullDisk) -> int:
    """Train until the disk has been full, empty it, train until the file grows again; the steps taken."""
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    give_up = time.monotonic() + 60
    steps = 0
    with Watcher(model, disk.path, config=WatchConfig(flush_s=0.05)) as watch:
        while not disk.noticed.is_set() and time.monotonic() < give_up:
            watch.log(loss=_step(model, optimizer))
            steps += 1
        assert disk.noticed.is_set()
        disk.room = 1 << 30
        size = disk.path.stat().st_size
        while disk.path.stat().st_size == size and time.monotonic() < give_up:
            watch.log(loss=_step(model, optimizer))
            steps += 1
    return steps


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    loss = model(torch.randn(6, 4)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
