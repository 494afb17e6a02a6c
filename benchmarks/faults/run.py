"""The open fault bench: does torchwatch find planted faults, and does it leave healthy trainings alone?

    python -m benchmarks.faults.run [--seeds 5] [--only SLUG …] [--quick] [--pool 1] [--budget default]
    [--show]

Every training runs in two processes of its own: once under plain torch (harm, and what other people's rules
say), once under a Watcher. The raw results go to ``--out``; the tables come from
:mod:`benchmarks.faults.report`.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.faults.bench import FAULTS, HEALTHY, Case, Run, cases
from benchmarks.faults.rivals import RULES, spoken
from benchmarks.faults.tap import Tap, tapped
from torchwatch import WatchConfig, Watcher, diagnose

LONGEST_S = 60
"""Of processor time per training; ten times as much by the clock."""
Job = tuple[str, int, bool, str]
"""Case, seed, whether faulty, and the budget: ``none`` or ``default``."""


def settings(budget: str) -> dict[str, Any]:
    """How trainings are watched.

    ``none``: without a budget (on steps of a millisecond it buys too few looks), and with a line per step, as
    loops of usual size write them. ``default``: nothing is set.
    """
    quiet: dict[str, Any] = {"terminal": False, "energy": False, "drain_s": 60.0}
    return quiet if budget == "default" else quiet | {"budget": None, "fast_steps_per_s": 1e9}


@contextmanager
def watched(
    paths: list[Path], case: Case, budget: str, folder: str, model: Any, **keywords: Any
) -> Iterator[Watcher]:
    """A Watcher as the watcher of a training; its file is appended to ``paths``."""
    own = dict(case.config) | {"declare": case.config.get("declare", {}) | keywords.pop("declare", {})}
    config = WatchConfig(**settings(budget), **own)
    with Watcher(model, Path(folder) / "run.jsonl", config=config, **keywords) as watch:
        paths.append(watch.path)
        yield watch


def seed_all(case: Case, seed: int) -> None:
    """The same seeds for both twins and for both looks."""
    number = seed * 7919 + sum(map(ord, case.slug))
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


def plain(case: Case, seed: int, *, faulty: bool) -> dict[str, Any]:
    """The training in plain torch: its harm and what other people's rules say."""
    taps: list[Tap] = []
    seed_all(case, seed)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(seed, faulty=faulty, watcher=partial(tapped, taps), folder=folder)
        started = time.perf_counter()
        score, error = _outcome(case, run)
    tap = taps[0]
    return {
        "score": score, "error": error, "plain_s": time.perf_counter() - started, "onset": run.onset,
        "nonfinite": tap.nonfinite, "best_val": _best_val(tap), "plain_steps": tap.steps,
        "rivals": spoken(tap),
    }  # fmt: skip


def _best_val(tap: Tap) -> int | None:
    """Step of the lowest validation loss."""
    points = [
        (e["val_loss"], int(e["step"])) for e in tap.epochs if math.isfinite(e.get("val_loss", math.nan))
    ]
    return min(points)[1] if points else None


def watching(case: Case, seed: int, budget: str, *, faulty: bool) -> dict[str, Any]:
    """The training under a Watcher: what it said, and whether a replay says the same."""
    paths: list[Path] = []
    seed_all(case, seed)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(seed, faulty=faulty, watcher=partial(watched, paths, case, budget, folder), folder=folder)
        started = time.perf_counter()
        score, _ = _outcome(case, run)
        watched_s = time.perf_counter() - started
        told = diagnose(paths[0])
        lines = [json.loads(line) for line in paths[0].read_text().splitlines()]
        intervals = [a["last_step"] for a in lines if a["kind"] == "interval"]
        alerts = [
            [a["check"], a["severity"], a["step"], a["since_step"], a["layer"], a["title"], a["state"]]
            for a in lines
            if a["kind"] == "alert" and a["state"] != "resolved"
        ]
        keep = os.environ.get("FAULTS_KEEP")
        if keep:
            name = f"{case.slug}-{seed}-{'fault' if faulty else 'twin'}.jsonl"
            (Path(keep) / name).write_bytes(paths[0].read_bytes())
    seen = {a[0] for a in alerts}  # what compares ranks is found when the files are read
    alerts += [
        [i.check, i.severity, i.step, i.since_step, i.layer, i.title, "read"]
        for i in told.issues
        if i.check not in seen
    ]
    incidents = [
        [i.root.check, i.root.severity, i.root.since_step, [s.check for s in i.symptoms]]
        for i in told.incidents
    ]
    return {
        "watched_score": score, "watched_s": watched_s, "steps": told.steps, "alerts": alerts,
        "incidents": incidents, "intervals": intervals, "replay": told.replay_matches,
        "replay_difference": told.replay_difference,
        "not_run": {s: told.not_run[s] for s in case.expect if s in told.not_run},
    }  # fmt: skip


def _outcome(case: Case, run: Run) -> tuple[float, str | None]:
    try:
        return float(case.train(run)), None
    except Exception as error:  # noqa: BLE001  # a training may crash: that is its outcome
        if os.environ.get("FAULTS_TRACE"):
            traceback.print_exc()
        return math.inf, f"{type(error).__name__}: {error}"


def work(job: Job) -> dict[str, Any]:
    """One training, in a process of its own."""
    slug, seed, faulty, budget = job
    case = (FAULTS | HEALTHY)[slug]
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    signal.alarm(10 * LONGEST_S)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {"slug": slug, "seed": seed, "faulty": faulty, "budget": budget}
    started = time.process_time()
    result |= plain(case, seed, faulty=faulty)
    result["plain_cpu_s"] = time.process_time() - started
    return result | watching(case, seed, budget, faulty=faulty)


def jobs(chosen: list[Case], seeds: int, budget: str) -> list[Job]:
    """All trainings, seed after seed; a fault with its twin."""
    return [
        (case.slug, seed, faulty, budget)
        for seed in range(seeds)
        for case in chosen
        for faulty in ((True, False) if case.kind != "healthy" else (False,))
    ]


def warm_up() -> None:
    """Import what a training will import, so that the forked processes have it; nothing is differentiated."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        with Watcher(model, Path(folder) / "run.jsonl", config=WatchConfig(**settings("none"))) as watch:
            model(torch.ones(1, 2))
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
            watch.log(loss=1.0)
        diagnose(watch.path)


def processed(work_list: list[Job], pool: int) -> Iterator[dict[str, Any]]:
    """Results as they come; each training in a forked process that has torch already."""
    torch.set_num_threads(1)
    warm_up()
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(work_list)), {}
    while waiting or running:
        while waiting and len(running) < pool:
            job = waiting.pop()
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_send, args=(theirs, job))
            process.start()
            theirs.close()
            running[ours] = job, process
        for pipe in connection.wait(list(running)):
            job, process = running.pop(pipe)  # type: ignore[arg-type]
            try:
                yield pipe.recv()  # type: ignore[union-attr]
            except EOFError:  # killed: said in the report, and the others go on
                process.join()
                name = ("slug", "seed", "faulty", "budget")
                yield dict(zip(name, job, strict=True)) | {"broken": f"exit code {process.exitcode}"}
            process.join()


def _send(pipe: Any, job: Job) -> None:
    pipe.send(work(job))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="slugs, or parts of them")
    parser.add_argument("--kind", choices=["wiring", "numeric", "dynamics", "system", "healthy"])
    parser.add_argument("--quick", action="store_true", help="one seed, every third training")
    parser.add_argument("--budget", choices=["none", "default"], default="none")
    parser.add_argument("--pool", type=int, default=1, help="trainings at a time")
    parser.add_argument("--show", action="store_true", help="every alert of every training")
    parser.add_argument("--resume", action="store_true", help="keep what --out has, and run the rest")
    parser.add_argument("--out", type=Path, default=Path("runs/faults.jsonl"))
    parser.add_argument("--record", action="store_true", help="write last.json and docs/detection.md")
    options = parser.parse_args(arguments)
    from benchmarks.faults import report

    chosen = [c for c in cases() if not options.only or any(o in c.slug for o in options.only)]
    chosen = [c for c in chosen if options.kind in {None, c.kind}]
    if options.quick:
        chosen, options.seeds = chosen[::3], 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.resume else []
    rows = [r for r in rows if "broken" not in r]
    done = {(r["slug"], r["seed"], r["faulty"], r["budget"]) for r in rows}
    todo = [job for job in jobs(chosen, options.seeds, options.budget) if job not in done]
    with options.out.open("a" if options.resume else "w") as out:
        for row in processed(todo, options.pool):
            rows.append(row)
            out.write(json.dumps(row) + "\n")
            out.flush()
            if options.show or "broken" in row:
                print(report.line(row), flush=True)
    print(report.text(rows))
    if options.record:
        report.record(rows)
    return 0


__all__ = ["RULES", "main"]

if __name__ == "__main__":
    sys.exit(main())
