"""What watching costs: step time monitored ÷ bare, paired and interleaved, against other monitors.

    python benchmarks/overhead/overhead.py --quick     # about 3 minutes, rough
    python benchmarks/overhead/overhead.py --write     # about 12 minutes; docs/overhead.md and last.json
    python benchmarks/overhead/overhead.py --workloads tiny,mlp --monitors default,wandb-all --json out.json

How it is measured is said in docs/overhead.md (and ``tables.py``). Needs the ``bench`` extra for wandb and
Lightning; without it these two rows say that they failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from benchmarks.overhead import tables  # noqa: E402 - the path is set above
from benchmarks.overhead.interleaved import Effort, choose_cores, measure  # noqa: E402
from benchmarks.overhead.monitors import BARE, KINDS  # noqa: E402
from benchmarks.overhead.results import Measured, summarise  # noqa: E402
from benchmarks.overhead.workloads import WORKLOADS  # noqa: E402

FULL = {
    "tiny": Effort(block_s=0.7, warm_s=2.0, calibrate_s=8.0, measure_s=60.0),
    "mlp": Effort(block_s=1.0, warm_s=2.0, calibrate_s=10.0, measure_s=100.0),
    "conv": Effort(block_s=1.2, warm_s=2.0, calibrate_s=20.0, measure_s=130.0),
    "gpt": Effort(block_s=1.6, warm_s=2.0, calibrate_s=30.0, measure_s=150.0),
}
SPARE = {name: replace(effort, measure_s=20.0) for name, effort in FULL.items()}
"""Our own monitors once more, where the recorder's thread finds a core to spare."""
QUICK = {
    name: Effort(block_s=0.7, warm_s=0.5, calibrate_s=3.0, measure_s=seconds, fewest=2)
    for name, seconds in (("tiny", 15.0), ("mlp", 18.0), ("conv", 22.0), ("gpt", 26.0))
}
OURS = ("default", "everything", "idle")
LAST = Path(__file__).with_name("last.json")
PAGE = ROOT / "docs" / "overhead.md"


def run(
    names: list[str], kinds: list[str], efforts: Mapping[str, Effort], *, pinned: bool
) -> dict[str, Measured]:
    """Measure workload after workload."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    measured = {}
    for name in names:
        started = time.perf_counter()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            outcome = measure(name, kinds, efforts[name], Path(folder), choose_cores(pinned))
        measured[name] = summarise(outcome)
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    return measured


def page(
    measured: dict[str, Measured], spare: dict[str, Measured], efforts: list[Effort], *, pinned: bool
) -> str:
    """Everything as one Markdown page."""
    lines = ["# What watching costs", ""]
    lines += [
        "Written by `python benchmarks/overhead/overhead.py --write`; what was measured, misses too.",
        "",
    ]
    lines += [*tables.provenance(), "", *tables.matrix(measured), ""]
    goals = tables.goals(measured)
    if goals:
        lines += ["## Goals", "", *goals, ""]
    if spare:
        lines += ["## With a core to spare", "", *tables.spare(), "", *tables.matrix(spare), ""]
    lines += ["## How", "", *tables.how(efforts, pinned=pinned)]
    lines += ["## In full", ""]
    for name, each in measured.items():
        lines += [*tables.details(name, each), ""]
    return "\n".join(lines)


def _choice(text: str, known: list[str]) -> list[str]:
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    monitors = [kind for kind in KINDS if kind != BARE]
    parser.add_argument("--workloads", type=lambda t: _choice(t, list(WORKLOADS)), default=list(WORKLOADS))
    parser.add_argument("--monitors", type=lambda t: _choice(t, monitors), default=monitors)
    parser.add_argument("--quick", action="store_true", help="3 minutes instead of 12, rough figures")
    parser.add_argument(
        "--any-core", action="store_true", help="do not pin the process that trains to a core"
    )
    parser.add_argument("--effort", type=float, default=1.0, help="measure so many times as long [1.0]")
    parser.add_argument("--no-spare", action="store_true", help="leave out the table with a core to spare")
    parser.add_argument("--json", type=Path, help="also keep the figures here")
    parser.add_argument("--write", action="store_true", help="write docs/overhead.md and last.json")
    arguments = parser.parse_args()
    pinned = not arguments.any_core
    efforts = {
        name: replace(effort, measure_s=arguments.effort * effort.measure_s)
        for name, effort in (QUICK if arguments.quick else FULL).items()
    }
    measured = run(arguments.workloads, arguments.monitors, efforts, pinned=pinned)
    ours = [kind for kind in arguments.monitors if kind in OURS]
    alone = arguments.quick or arguments.no_spare or not pinned
    spare = {} if alone else run(arguments.workloads, ours, SPARE, pinned=False)
    print(text := page(measured, spare, [efforts[name] for name in measured], pinned=pinned))
    figures = {
        "provenance": tables.provenance()[2:],
        "workloads": {name: each.as_json() for name, each in measured.items()},
        "spare": {name: each.as_json() for name, each in spare.items()},
    }
    body = json.dumps(figures, indent=1) + "\n"
    if arguments.json:
        arguments.json.write_text(body)
    if arguments.write:
        LAST.write_text(body)
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
