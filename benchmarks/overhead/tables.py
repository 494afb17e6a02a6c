"""The tables, as Markdown."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.overhead.goals import judge
from benchmarks.overhead.interleaved import Effort
from benchmarks.overhead.monitors import KINDS
from benchmarks.overhead.results import Measured

ROOT = Path(__file__).parents[2]
_HOW = """\
Step time monitored ÷ bare. Every monitor has a process, a model and an optimizer of its own; one process
trains at a time, for a block of at least {block} s, and a bare block runs before and after every monitor's.
A ratio is a block's time over that of as many bare steps, from the mean of its two bare neighbours. `in
all` is all monitored time over all bare time, so that what is measured on few steps counts in full; its
interval is a bootstrap over blocks.

One torch thread; {place}. Blocks whose bare neighbours disagree by more than twice the usual are left out,
whatever the monitor did. A warm-up is not counted (at least {warm} s and 3 steps; with a budget 100 steps,
at most {calibrate} s). Up to 0.5 s of steps of a block are decoded by torchwatch's recorder thread when the
block has ended.

`everything` measures, on every step and without a budget, all that is on by default. What torchwatch says
of its own cost is the `watch_share` of the intervals that hold the measured blocks. `wandb` runs offline
and `wandb.log` is called on every step; its writing process uses another core and is not counted. The
Composer-style monitor is a re-implementation of the published idea (norm, mean, kurtosis and maximum per
layer), not Composer itself, and the cheaper variant: outputs of leaves only. Nothing is logged by it, the
naive hooks and the gradient norms."""


def matrix(measured: Mapping[str, Measured]) -> list[str]:
    """Medians of all monitors on all workloads."""
    lines = [
        "| median of monitored ÷ bare | " + " | ".join(measured) + " |",
        "|---|" + "---|" * len(measured),
    ]
    bare = " | ".join(f"{m.bare_s * 1e3:.3g} ms" for m in measured.values())
    lines.append(f"| bare step | {bare} |")
    for kind, row in KINDS.items():
        if any(kind in m.rows or kind in m.failed for m in measured.values()):
            cells = [
                f"{m.rows[kind].ratios.median:.3f}" if kind in m.rows else "–" for m in measured.values()
            ]
            lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return lines


def details(name: str, measured: Measured) -> list[str]:
    """One workload in full."""
    lines = [
        f"### {name}: {measured.bare_s * 1e3:.3g} ms bare",
        "",
        "| monitor | median [quartiles] | in all (95 % interval) | CPU time, median | added | pairs |",
        "|---|---|---|---|---|---|",
    ]
    for kind, row in sorted(measured.rows.items(), key=lambda item: list(KINDS).index(item[0])):
        r = row.ratios
        added = (r.total - 1) * measured.bare_s * 1e3
        pairs = f"{r.pairs}" + (f" (−{r.left_out})" if r.left_out else "")
        lines.append(
            f"| {KINDS[kind].title} | {r.median:.3f} [{r.quartiles[0]:.3f}, {r.quartiles[1]:.3f}] "
            f"| {r.total:.3f} ({r.interval[0]:.3f}–{r.interval[1]:.3f}) | {r.cpu:.3f} | {added:+.3g} ms "
            f"| {pairs} |"
        )
    lines += ["", *_said(measured)]
    lines += [f"- {kind} failed: {why.strip().splitlines()[-1]}" for kind, why in measured.failed.items()]
    return lines


def _said(measured: Measured) -> list[str]:
    lines = []
    for kind, row in measured.rows.items():
        if row.self_share is None:
            continue
        told = row.told
        line = (
            f"- {kind}: says it cost {row.self_share:.2%}; gradients every {told['gradients_every']}, "
            f"activations every {told['activations_every']} steps; {told['bytes_per_step']:.0f} bytes a step"
        )
        if told["alerts"]:
            line += f"; alerts: {', '.join(told['alerts'])} ({told['zoomed_steps'] or 0} steps zoomed)"
        if told["dropped"]:
            line += f"; {told['dropped']} step details dropped"
        lines.append(line)
    return lines


def goals(measured: Mapping[str, Measured]) -> list[str]:
    """What was to be shown, beside what was measured."""
    judged = judge({name: m.rows for name, m in measured.items()})
    lines = ["| goal | workload | number | measured | |", "|---|---|---|---|---|"]
    for j in judged:
        mark = "met" if j.met else "**missed**"
        lines.append(f"| {j.claim} | {j.workload} | {j.goal} | {j.measured} | {mark} |")
    return lines if judged else []


def spare() -> list[str]:
    """What the second table is, as lines."""
    said = """The same, but threads run on whatever core the system gives them: nothing else is busy, so that
torchwatch's recorder has a core of its own. Most machines are nearer to this; the tables above and below are
the worst case."""
    return textwrap.wrap(said, 110)


def how(efforts: Sequence[Effort], *, pinned: bool) -> list[str]:
    """How it was measured, as lines."""
    told = {
        "block": min(e.block_s for e in efforts),
        "warm": min(e.warm_s for e in efforts),
        "calibrate": max(e.calibrate_s for e in efforts),
        "place": "all threads of the process that trains share one core, and nothing else of this runs there"
        if pinned
        else "threads run on whatever core the system gives them",
    }
    lines = []
    for paragraph in _HOW.split("\n\n"):
        lines += [*textwrap.wrap(paragraph.format(**told), 110), ""]
    return lines


def provenance() -> list[str]:
    """Date, commit, versions and machine."""
    versions = []
    for package in ("torch", "wandb", "lightning", "numpy"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return [
        "| | |",
        "|---|---|",
        f"| date | {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC |",
        f"| commit | {_commit()} |",
        f"| versions | Python {platform.python_version()}, {', '.join(versions)} |",
        f"| machine | {platform.system()} {platform.machine()}, {_processor()}, {os.cpu_count()} cores |",
    ]


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short", "HEAD")
    return (head or "unknown") + (" with uncommitted changes" if git("status", "--porcelain") else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
