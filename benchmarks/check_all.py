"""``make check`` writes its last result into docs/checked.md: date, commit, machine, figures.

    python benchmarks/check_all.py

Runs the slow tests and the benches one after the other; a failure is written down and fails the command.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PARTS: dict[str, list[str]] = {
    "fast tests": ["-m", "pytest", "-q", "-n", "2", "-m", "not slow and not gpu"],
    "slow tests": ["-m", "pytest", "-q", "-n", "2", "-m", "slow and not gpu"],
    "false alarms and misses of the loss checks": ["benchmarks/checks/false_alarms.py"],
    "diagnosis of 1,000,000 steps": ["benchmarks/replay/replay.py"],
    "file size": ["benchmarks/filesize/filesize.py"],
    "overhead, quick": ["benchmarks/overhead/overhead.py", "--quick"],
}


def run(command: list[str]) -> tuple[int, str, float]:
    started = time.perf_counter()
    done = subprocess.run([PYTHON, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return (
        done.returncode,
        done.stdout + (done.stderr if done.returncode else ""),
        time.perf_counter() - started,
    )


def commit() -> str:
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return head.stdout.strip() + (" with uncommitted changes" if changed.stdout.strip() else "")


def main() -> int:
    lines = [
        "# Last `make check`",
        "",
        "Written by `benchmarks/check_all.py`; what it saw, also where it misses a goal.",
        "",
        "| | |",
        "|---|---|",
        f"| date | {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC |",
        f"| commit | {commit()} |",
        f"| machine | {platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU used |",
        f"| Python | {platform.python_version()} |",
    ]
    failed = 0
    for name, command in PARTS.items():
        print(f"{name} …", flush=True)
        code, output, seconds = run(command)
        failed += code != 0
        state = "passed" if code == 0 else f"FAILED (exit code {code})"
        tail = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.strip().splitlines()][-60:]
        if "pytest" in command:
            tail = tail[-1:] if code == 0 else tail[-25:]
        lines += ["", f"## {name}: {state}, {seconds:.0f} s", "", "```", *tail, "```"]
        print(f"{name}: {state} in {seconds:.0f} s", flush=True)
    (ROOT / "docs" / "checked.md").write_text("\n".join(lines) + "\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
