"""A full autopsy of the worked example, and the verdicts on its three variants: how long each part takes.

    python -m benchmarks.autopsy.whole [--variant weak]

Trains the network of docs/examples/mean_collapse.py and examines it with everything that applies. The goal is
three minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from torchwatch import autopsy, diagnose

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
GOAL_S = 180.0


def examined(variant: str) -> float:
    """Seconds of the whole autopsy, with the run's diagnosis; what each part took is printed."""
    sys.path.insert(0, str(EXAMPLES))
    import mean_collapse

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / variant
        nrmse = mean_collapse.train(variant, out)
        inputs = mean_collapse.inputs_of(variant)
        inputs.model.load_state_dict(torch.load(out.with_suffix(".pt"), weights_only=True))
        diagnosis = diagnose(out.with_suffix(".jsonl"))
        started = time.perf_counter()
        found = autopsy(inputs, diagnosis=diagnosis)
        report_from = time.perf_counter()
        found.report(Path(folder) / "report")
        ended = time.perf_counter()
    first = found.verdict.first
    print(
        f"{variant}: validation NRMSE {nrmse:.3f}, verdict {first.name} ({first.share:.0%} of the evidence)"
    )
    for outcome in found.outcomes:
        if outcome.duration_s >= 0.05:
            print(f"  {outcome.name:20} {outcome.duration_s:6.1f} s")
    print(
        f"  {'examined':20} {report_from - started:6.1f} s, report with pictures {ended - report_from:.1f} s"
    )
    return ended - started


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variant", choices=("weak", "collapsed", "misaligned"), action="append")
    variants = parser.parse_args().variant or ["weak", "collapsed", "misaligned"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads on {cores} cores")
    longest = max(map(examined, variants))
    print(f"longest {longest:.0f} s, goal {GOAL_S:.0f} s: {'met' if longest <= GOAL_S else 'MISSED'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
