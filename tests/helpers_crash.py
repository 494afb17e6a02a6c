"""Trainings that get killed: a fork server that has imported everything once, and what its children do.

``python -m tests.helpers_crash`` reads one :class:`Job` per line from stdin, forks a child that trains until
it is killed or done, and answers with the child's process id. The child keeps a diary in shared memory, which
survives SIGKILL: the monotonic time at which each step was completed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torchwatch.records import Record

LONGEST_RUN_S = 30.0
_SLOTS = 500_000
_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Job:
    """One child.

    ``folder`` takes ``run.jsonl``, the diary and what was shown; ``pause_s`` is waited after every step (0:
    as fast as it goes); ``disk`` says how the disk fills in mid-run ("": it does not). ``rests_after`` that
    many steps, of which few are measured, the loop does nothing any more (0: it goes on).
    """

    folder: str
    pause_s: float
    disk: str = ""
    rests_after: int = 0

    @property
    def run(self) -> Path:
        """The run file."""
        return Path(self.folder) / ("disk" if self.disk == "filesystem" else "") / "run.jsonl"

    def times(self, mode: str = "r") -> Any:
        """Completion time of each step (monotonic seconds), 0 where it was not completed; index 0 unused."""
        return np.memmap(Path(self.folder) / "times", np.float64, mode, shape=(_SLOTS,))  # type: ignore[call-overload]

    def shown(self, who: str) -> list[bytes]:
        """Complete lines of the alerts that ``who`` ("sink" or "callback") was shown."""
        path = Path(self.folder) / who
        return path.read_bytes().splitlines(keepends=True) if path.exists() else []


class Witness:
    """Writes down every alert that it is shown, unbuffered."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, record: Record) -> None:
        """As a sink: every record, of which only alerts count."""
        from torchwatch.records import Alert, encode

        if isinstance(record, Alert):
            os.write(self._fd, encode(record))

    def close(self) -> None:
        """As a sink."""
        os.close(self._fd)


def train(job: Job, going: Callable[[], bool]) -> None:
    """A tiny training whose loss is sick every other fifth of a second, so that alerts open all the time."""
    import torch

    from torchwatch import WatchConfig, Watcher
    from torchwatch.sinks.terminal import TerminalSink

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    folder, times = Path(job.folder), job.times("r+")
    callback = Witness(folder / "callback")
    config = WatchConfig(flush_s=0.1 if job.disk else 0.5)
    if job.rests_after:
        config = dataclasses.replace(config, gradients_every=1000, activations_every=1000, zoom_steps=0)
    sinks = [TerminalSink(), Witness(folder / "sink")]
    with Watcher(model, job.run, config=config, sinks=sinks, on_alert=callback.write) as watch:
        for step in itertools.count(1):
            loss = torch.nn.functional.mse_loss(model(torch.randn(6, 4)), torch.randn(6, 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sick = int(time.monotonic() * 5) % 2
            watch.log(loss=math.nan if sick else loss)
            times[step] = time.monotonic()
            if not going():
                break
            if step == job.rests_after:
                time.sleep(LONGEST_RUN_S)
            if job.pause_s:
                time.sleep(job.pause_s)


class Disk:
    """A disk that is full between ``from_s`` and ``until_s`` seconds of the run, which ends at ``end_s``."""

    from_s, until_s, end_s = 0.8, 2.0, 3.5

    def __init__(self, job: Job) -> None:
        self._start = 0.0
        self._job = job
        self._full = False
        self._ballast = job.run.with_name("ballast")

    def going(self) -> bool:
        """Fill and empty the disk at the right times; whether the run goes on."""
        self._start = self._start or time.monotonic()
        now = time.monotonic() - self._start
        full = self.from_s <= now < self.until_s
        if full != self._full:
            self._full = full
            getattr(self, f"_{self._job.disk}")(full=full)
        return now < self.end_s

    def _limit(self, *, full: bool) -> None:
        """Files may not grow beyond the run file's size and half a line; writing more fails with EFBIG."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        most = self._job.run.stat().st_size + 40 if full else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    def _filesystem(self, *, full: bool) -> None:
        """The small file system is filled by another file, which is deleted later."""
        if not full:
            self._ballast.unlink()
            return
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))


def work(job: Job) -> None:
    """What a child does, with its talk going to a file."""
    log = os.open(Path(job.folder) / "stderr", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job.disk:
        train(job, Disk(job).going)
        (Path(job.folder) / "done").write_bytes(job.run.read_bytes())
        return
    give_up = time.monotonic() + LONGEST_RUN_S
    train(job, lambda: time.monotonic() < give_up)


def serve() -> None:
    """The fork server: one job a line, one process id a line."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:  # whatever is loaded at first use is there before the forks
        job = Job(folder, 0.0)
        job.times("w+").flush()
        train(job, iter([True] * 20 + [False]).__next__)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by the kernel
    for line in sys.stdin:
        job = Job(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status = 1
            try:
                work(job)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class Child:
    """A training that runs in a child of the server."""

    job: Job
    pidfd: int

    def wait_for_a_step(self) -> None:
        """Until the first step is complete."""
        times, give_up = self.job.times(), time.monotonic() + LONGEST_RUN_S
        while times[1] == 0 and time.monotonic() < give_up:
            time.sleep(0.002)
        assert times[1] > 0, (Path(self.job.folder) / "stderr").read_text()

    def kill(self) -> float:
        """SIGKILL, and wait until it is dead. Returns the monotonic time just before."""
        moment = time.monotonic()
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.wait()
        return moment

    def wait(self) -> None:
        """Until it has ended."""
        ended, _, _ = select.select([self.pidfd], [], [], 2 * LONGEST_RUN_S)
        assert ended, "the child neither ended nor died"
        os.close(self.pidfd)


class Server:
    """The running fork server; a context manager."""

    def __init__(self, *prefix: str) -> None:
        command = [*prefix, sys.executable, "-m", "tests.helpers_crash"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def start(self, job: Job) -> Child:
        """Fork a child for the job."""
        Path(job.folder).mkdir(parents=True, exist_ok=True)
        job.times("w+").flush()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
        self._process.stdin.flush()
        return Child(job, os.pidfd_open(int(self._process.stdout.readline())))


def lines_of(path: Path) -> Iterator[bytes]:
    """The complete lines of a file, which may be missing."""
    if path.exists():
        yield from (line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))


if __name__ == "__main__":
    serve()
