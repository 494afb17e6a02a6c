"""A long run of the tiny network under the default watcher: does anything grow?

    python benchmarks/steady/steady.py                     # 200,000 steps, one to five minutes
    python benchmarks/steady/steady.py --steps 20000       # a look
    python benchmarks/steady/steady.py --bare              # the same loop without a watcher, for comparison

The training runs in a process of its own; memory, threads and handles are read from outside. After a warm-up
of a quarter of the steps they must stay where they are. Exit code 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import orjson
import psutil

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

_LOOKS = 200
_WARM_UP = 0.25
_RSS_MB = 5.0
_SPARE_HANDLES = 3
"""Files that a thread of ours opens for a moment: reading /proc is one."""
_STEPS_LINE_BYTES = 60.0


@dataclass(frozen=True)
class Sample:
    """One look at the process: after how many steps and seconds, resident memory in MB, and counts.

    ``waiting``: items in the recorder's queue.
    """

    step: int
    seconds: float
    rss_mb: float
    threads: int
    handles: int
    waiting: int


@dataclass(frozen=True)
class FileCounts:
    """What the run file says: bytes by kind, bytes and steps of ``steps`` lines without columns, losses."""

    size: int
    bytes_by_kind: dict[str, int]
    scalar_bytes: int
    scalar_steps: int
    steps: int
    dropped: int
    dropped_in_intervals: int
    lost_lines: int
    complete: bool


@dataclass(frozen=True)
class Verdict:
    """A bound and whether it was kept."""

    what: str
    measured: str
    bound: str
    kept: bool


# ---------------------------------------------------------------------- the training process


def train(line: Connection, path: Path, steps: int, *, bare: bool) -> None:
    """Train the tiny network, and say now and then how far it is and what waits for the recorder."""
    import torch

    from benchmarks.overhead.workloads import build
    from torchwatch import WatchConfig, Watcher

    torch.set_num_threads(1)
    workload = build("tiny")
    every = max(steps // _LOOKS, 1)

    def loop(watch: Watcher | None) -> None:
        queue = () if watch is None else watch._session.recorder._queue  # nothing public counts it
        log = (lambda _: None) if watch is None else (lambda loss: watch.log(loss=loss))
        most = 0
        for step in range(1, steps + 1):
            workload.run(lambda: None, log)
            if step % 16 == 0:
                most = max(most, len(queue))
            if step % every == 0:
                line.send((step, most))
                most = 0
                line.recv()  # the look from outside is over

    if bare:
        loop(None)
    else:
        with Watcher(workload.model, path, config=WatchConfig(terminal=False), sinks=[]) as watch:
            loop(watch)
    line.send(None)


def observe(path: Path, steps: int, *, bare: bool = False) -> list[Sample]:
    """Run the training and look at its process about 200 times.

    Raises:
        RuntimeError: the training process broke.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=train, args=(there, path, steps), kwargs={"bare": bare})
    process.start()
    there.close()
    seen, samples, started = psutil.Process(process.pid), [], time.perf_counter()
    try:
        while (news := here.recv()) is not None:
            step, waiting = news
            rss = seen.memory_info().rss / 1e6
            seconds = time.perf_counter() - started
            samples.append(Sample(step, seconds, rss, seen.num_threads(), seen.num_fds(), waiting))
            here.send(None)
    except EOFError:
        raise RuntimeError("the training process broke") from None
    finally:
        process.join(30.0)
        process.terminate()
    return samples


# ---------------------------------------------------------------------- the run file


def count(path: Path) -> FileCounts:
    """Read a run file as plain lines."""
    by_kind: Counter[str] = Counter()
    scalar_bytes = scalar_steps = dropped = 0
    end: dict[str, object] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        body = orjson.loads(line)
        by_kind[body["kind"]] += len(line)
        if body["kind"] == "steps":
            columns = body.pop("columns", None)
            scalar_bytes += len(line) if columns is None else len(orjson.dumps(body)) + 1
            scalar_steps += body["count"]
        elif body["kind"] == "interval":
            dropped += body.get("dropped", 0)
        elif body["kind"] == "end":
            end = body
    return FileCounts(
        size=path.stat().st_size,
        bytes_by_kind=dict(by_kind),
        scalar_bytes=scalar_bytes,
        scalar_steps=scalar_steps,
        steps=int(str(end.get("steps", 0))),
        dropped=int(str(end.get("dropped", 0))),
        dropped_in_intervals=dropped,
        lost_lines=int(str(end.get("lost_lines", 0))),
        complete=end.get("complete", True) is True and bool(end),
    )


# ---------------------------------------------------------------------- what follows


def judge(
    samples: Sequence[Sample], queue_bound: int, counts: FileCounts | None, steps: int
) -> list[Verdict]:
    """All bounds: what must stay where it is after the warm-up, and what the run file must say."""
    late = [s for s in samples if s.step > steps * _WARM_UP]
    part = max(len(late) // 10, 1)
    verdicts = [_flat_memory([s.rss_mb for s in late])]
    for name, spare in (("threads", 0), ("handles", _SPARE_HANDLES)):
        values = [getattr(s, name) for s in late]
        first, last = float(np.median(values[:part])), float(np.median(values[-part:]))
        kept = last <= first and max(values) <= first + spare
        measured = f"{first:.0f} at first, {last:.0f} at last, {max(values)} at most"
        bound = "no growth" + (f", {spare} more for a moment" if spare else "")
        verdicts.append(Verdict(name, measured, bound, kept))
    if counts is None:
        return verdicts
    most = max(s.waiting for s in samples)
    per_step = counts.scalar_bytes / max(counts.scalar_steps, 1)
    said = counts.dropped == counts.dropped_in_intervals
    lines_kept = counts.complete or counts.dropped or counts.lost_lines
    return [
        *verdicts,
        Verdict("recorder queue", f"{most} items at most", f"≤ {queue_bound}", most <= queue_bound),
        Verdict("steps in the file", f"{counts.steps:,}", f"{steps:,}", counts.steps == steps),
        Verdict("dropped step details", f"{counts.dropped}", "intervals and end record agree", said),
        Verdict("lost lines", f"{counts.lost_lines}", "0, or the file says so", bool(lines_kept)),
        Verdict(
            "bytes a step, `steps` lines without columns",
            f"{per_step:.1f}",
            f"≤ {_STEPS_LINE_BYTES:.0f}",
            per_step <= _STEPS_LINE_BYTES,
        ),
    ]


def _flat_memory(rss_mb: Sequence[float]) -> Verdict:
    """Within ± 5 MB of the middle of its range."""
    spread = (max(rss_mb) - min(rss_mb)) / 2
    slope = float(np.polyfit(np.linspace(0, 1, len(rss_mb)), rss_mb, 1)[0]) if len(rss_mb) > 1 else 0.0
    measured = f"± {spread:.1f} MB around {np.median(rss_mb):.0f} MB, trend {slope:+.1f} MB"
    return Verdict("resident memory", measured, f"± {_RSS_MB:.0f} MB", spread <= _RSS_MB)


def tables(samples: Sequence[Sample], counts: FileCounts | None, verdicts: Sequence[Verdict]) -> str:
    """Markdown: the course of the run, the bounds, the file."""
    lines = ["| step | time | RSS | threads | handles | queue |", "|---|---|---|---|---|---|"]
    shown = samples[:: max(len(samples) // 10, 1)]
    lines += [
        f"| {s.step:,} | {s.seconds:.0f} s | {s.rss_mb:.1f} MB | {s.threads} | {s.handles} | {s.waiting} |"
        for s in [*shown, *([samples[-1]] if samples[-1] not in shown else [])]
    ]
    lines += ["", "| after a quarter of the steps | measured | bound | |", "|---|---|---|---|"]
    for v in verdicts:
        lines.append(f"| {v.what} | {v.measured} | {v.bound} | {'kept' if v.kept else '**broken**'} |")
    if counts is not None:
        kinds = ", ".join(f"{k} {n:,}" for k, n in sorted(counts.bytes_by_kind.items(), key=lambda e: -e[1]))
        per_step = counts.size / max(counts.steps, 1)
        lines += [
            "",
            f"Run file: {counts.size:,} bytes, {per_step:.1f} a step in all; bytes by kind: {kinds}.",
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--bare", action="store_true", help="without a watcher")
    parser.add_argument("--json", type=Path, help="also keep the figures here")
    arguments = parser.parse_args()
    from torchwatch import WatchConfig

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        samples = observe(path, arguments.steps, bare=arguments.bare)
        counts = None if arguments.bare else count(path)
    verdicts = judge(samples, 4 * WatchConfig().queue_steps, counts, arguments.steps)
    print(tables(samples, counts, verdicts))
    if arguments.json:
        figures = {
            "samples": [asdict(s) for s in samples],
            "file": None if counts is None else asdict(counts),
            "verdicts": [asdict(v) for v in verdicts],
        }
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if all(v.kept for v in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
